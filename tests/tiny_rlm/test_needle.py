"""The lessons of needle-rlm, played in the real REPL."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

import rlm_env
from rlm_env.llm import ContextOverflow, LLMError
from rlm_env.task import Task
from tests.tiny_rlm.playing import stage
from tiny_rlm.needle import NONE, STRATEGIES, NeedleLessons

LESSONS = NeedleLessons()


@pytest.mark.slow
async def test_every_strategy_ends_and_the_sound_ones_are_right():
    async with stage(LESSONS, 8) as played:
        scores = {name: await played.play_all(name) for name in LESSONS.strategies}
    assert {name for name, each in scores.items() if min(each) == 1.0} >= {n for n in scores if n.startswith("sound")}
    assert all(fmean(scores[name]) < 0.8 for name in scores if not name.startswith("sound"))
    assert fmean(scores["ask_at_once"]) == 0.75  # three of four lengths fit a sub-LLM's window


async def test_a_long_context_overflows_one_call_and_not_many():
    async with stage(LESSONS, 1, lengths=10_000) as played:
        (task,) = played.tasks
        at_once, score = await played.play("ask_at_once", task)
        by_lines, right = await played.play("sound_sub_all", task)
    assert "too long" in at_once.answer
    assert (score, right) == (0.0, 1.0)
    assert len(by_lines.sub_calls) == task.context.count("\n") + 1
    assert sorted({call.text for call in by_lines.sub_calls}) == [task.gold, NONE]


async def test_the_sub_llm_reads_what_teachers_write_and_refuses_the_rest():
    sub = LESSONS.sub([])
    ask = (
        "Number for red-fox: The special magic number for red-cat is 123. The special magic number for red-fox is 456."
    )

    async def answer(prompt):
        return (await sub.complete([{"role": "user", "content": prompt}])).text

    assert await answer(ask) == "456"
    assert await answer(ask.replace("red-fox is", "big-fox is")) == NONE
    with pytest.raises(LLMError, match="no teacher"):
        await answer("What is the number for red-fox?")
    with pytest.raises(ContextOverflow):
        await answer("Number for red-fox: " + "The cook sees a cup. " * 400)


def test_readings_have_both_answers_and_fit_the_prompt():
    tasks = rlm_env.load_environment("needle-rlm", **LESSONS.options).tasks("train").take(8)
    readings = LESSONS.readings(tasks, random.Random(0))
    replies = [messages[-1]["content"] for messages in readings]
    assert sum(reply == NONE for reply in replies) == len(replies) / 2 == 8
    assert {reply for reply in replies if reply != NONE} == {task.gold for task in tasks}


def test_strategies_are_named_once_and_their_shares_make_a_whole():
    assert LESSONS.strategies.keys() == STRATEGIES.keys()
    assert sum(LESSONS.strategies.values()) == pytest.approx(1)
    assert LESSONS.batching <= STRATEGIES.keys()


def test_without_sub_llms_no_plan_calls_one():
    task = rlm_env.load_environment("needle-rlm", **LESSONS.options).tasks("train").take(1)[0]
    draw = random.Random(0)
    plans = [LESSONS.draw_plan(task, draw, sub_llms=False) for _ in range(200)]
    assert len({plan.strategy for plan in plans}) == len(STRATEGIES) - len(LESSONS.batching)
    assert not any("llm_batch" in reply for plan in plans for reply in plan.replies if isinstance(reply, str))


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        LESSONS.plan(Task("Who is it?", "nobody", "x"), "sound", random.Random(0))
