"""tiny-rlm's lessons of needle-rlm: teachers in the real REPL, and the scripted reader."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from rlm_env.llm import ContextOverflow, LLMError
from rlm_env.task import Task
from tests.tiny_rlm.playing import check_strategies
from tiny_rlm.needle import NONE, STRATEGIES, NeedleLessons, asked
from tiny_rlm.profile import make_environment
from tiny_rlm.sessions import record_sessions

LESSONS = NeedleLessons()


@pytest.mark.slow
async def test_every_strategy_ends_and_only_the_sound_ones_are_always_right():
    async with make_environment(LESSONS, 0) as env:
        scores = await check_strategies(env, LESSONS)
    assert fmean(scores["ask_at_once"]) == 0.75  # three of four lengths fit a sub-LLM's window


async def test_a_long_context_overflows_one_call_and_not_many():
    async with make_environment(LESSONS, 0, lengths=6000) as env:
        tasks = env.tasks("train").take(1)
        [at_once] = await record_sessions(env, LESSONS, tasks, 0, strategy="ask_at_once")
        [by_lines] = await record_sessions(env, LESSONS, tasks, 0, strategy="sound_sub_all")
    name = asked(tasks[0])
    assert (at_once.score, at_once.subs, by_lines.score) == (0.0, [], 1.0)
    assert len(by_lines.subs) == tasks[0].context.count("\n") + 1
    assert {sub.messages[-1]["content"] for sub in by_lines.subs} == {f"{name} is {tasks[0].gold}", f"{name} is {NONE}"}


async def test_the_sub_llm_reads_what_teachers_write_and_refuses_the_rest():
    sub = LESSONS.sub([])
    ask = (
        "Number for red-fox: The special magic number for red-cat is 123. The special magic number for red-fox is 456."
    )

    async def answer(prompt):
        return (await sub.complete([{"role": "user", "content": prompt}])).text

    assert await answer(ask) == "red-fox is 456"
    assert await answer(ask.replace("red-fox is", "big-fox is")) == f"red-fox is {NONE}"
    with pytest.raises(LLMError, match="no teacher"):
        await answer("What is the number for red-fox?")
    with pytest.raises(ContextOverflow):
        await answer("Number for red-fox: " + "The cook sees a cup. " * 400)


def test_readings_have_both_answers():
    tasks = make_environment(LESSONS, 0).tasks("train").take(8)
    readings = [tuple(m["content"] for m in messages) for messages in LESSONS.readings(tasks, random.Random(0))]
    replies = [reply.split()[-1] for _, reply in readings]
    assert sum(reply == NONE for reply in replies) == len(replies) / 2 == 24
    assert {task.gold for task in tasks} <= set(replies)
    assert all((reply in prompt) == (NONE not in reply) for prompt, reply in readings)
    assert all("special magic" in prompt for prompt, _ in readings)


def test_without_sub_llms_no_plan_calls_one():
    task = make_environment(LESSONS, 0).tasks("train").take(1)[0]
    draw = random.Random(0)
    plans = [LESSONS.draw_plan(task, draw, sub_llms=False) for _ in range(400)]
    assert {plan.strategy for plan in plans} == STRATEGIES.keys() - LESSONS.batching
    assert not any("llm_batch" in reply for plan in plans for reply in plan.replies if isinstance(reply, str))


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        LESSONS.plan(Task("Who is it?", "nobody", "x"), "sound", random.Random(0))
