"""tiny-rlm's lessons of codeqa-rlm: teachers in the real REPL, and the scripted reader."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rlm_env.llm import LLMError
from rlm_env.task import Task
from tests.tiny_rlm.playing import check_strategies
from tiny_rlm.codeqa.lessons import CODE_STRATEGIES, CodeQALessons
from tiny_rlm.codeqa.questions import read_code_question
from tiny_rlm.profile import make_environment
from tiny_rlm.sessions import record_sessions

LESSONS = CodeQALessons()
FAMILIES = ("callers", "overrides", "default")


@pytest.fixture(scope="module")
async def env():
    async with make_environment(LESSONS, 0, lengths=[240, 2400]) as env:
        yield env


@pytest.mark.slow
async def test_every_strategy_ends_and_only_the_sound_ones_are_always_right(env):
    scores = await check_strategies(env, LESSONS)  # every family in both lengths
    assert set(scores["wrong_form"] + scores["wrong_form_search"] + scores["no_answer"]) == {0.0}


async def test_a_long_repository_overflows_one_call_and_not_many(env):
    [task] = env.tasks("train").take(2)[1:]
    [at_once] = await record_sessions(env, LESSONS, [task], 0, strategy="ask_at_once")
    [by_blocks] = await record_sessions(env, LESSONS, [task], 0, strategy="sound")
    assert (at_once.score, at_once.subs, by_blocks.score) == (0.0, [], 1.0)
    assert Counter(sub.messages[-1]["content"] for sub in by_blocks.subs) == {"no": 3, "yes": 1}


@pytest.mark.parametrize("strategy", ["sound", "sound_search"])
async def test_what_is_asked_for_is_found_under_another_name_too(env, strategy):
    """Where an import renames it."""
    renamed = [task for task in env.tasks("train").take(60) if _is_renamed(task)]
    assert {task.info["family"] for task in renamed} >= {"callers", "overrides"}
    played = await record_sessions(env, LESSONS, renamed[:6], 0, strategy=strategy)
    assert [session.score for session in played] == [1.0] * 6


def _is_renamed(task: Task) -> bool:
    return f"import {read_code_question(task.question).name} as " in "".join(task.context.values())


FUNCTION = "def show_drum(a=66, limit=12):\n    total = a - 6\n    {}\n    return total\n"


@pytest.mark.parametrize(
    ("imports", "line", "reply"),
    [
        ("", "total += take_cup(total)", "no"),  # its own homonym
        ("", "total += race.take_cup(total)", "yes"),
        ("from race import take_cup\n\n\n", "total += take_cup(total)", "yes"),
        ("from race import take_cup as add_hat\n\n\n", "total += add_hat(total)", "yes"),
        ("from book import take_cup\n\n\n", "total += take_cup(total)", "no"),
        ("from race import take_cup\n\n\n", "if limit > 2:\n        total += take_cup(total)", "yes"),
        ("from race import take_cup\n\n\n", "if limit > 30:\n        total += take_cup(total)", "no"),
        ("from race import take_cup\n\n\n", "later = take_cup", "no"),
        ("from race import take_cup\n\n\n", "# no take_cup here", "no"),
    ],
)
async def test_the_sub_llm_tells_a_call_from_a_mention(imports, line, reply):
    assert await answer(f"Calls race.take_cup? team.show_drum {imports}{FUNCTION.format(line)}") == reply


async def test_the_sub_llm_reads_what_teachers_write_and_refuses_the_rest():
    own = "Calls race.take_cup? race.show_drum " + FUNCTION.format("total += take_cup(total)")
    assert await answer(own) == "yes"
    heir = "class NewRice(milk.BlueBall):\n    kind = 'cup'\n    def take_cup(self, n=6):\n        return n\n"
    assert await answer(f"Has take_cup? {heir}") == "yes"
    assert await answer(f"Has add_cup? {heir}") == "no"
    assert await answer("Default of limit? " + FUNCTION) == "12"
    with pytest.raises(LLMError, match="no teacher"):
        await answer("Who calls race.take_cup?")


async def answer(prompt: str) -> str:
    return (await LESSONS.sub([]).complete([{"role": "user", "content": prompt}])).text


def test_readings_have_all_answers():
    tasks = make_environment(LESSONS, 0).tasks("train").take(60)
    readings = [(prompt["content"], reply["content"]) for prompt, reply in LESSONS.readings(tasks, random.Random(0))]
    for kind in ("Calls", "Has"):
        replies = Counter(reply for prompt, reply in readings if prompt.startswith(kind))
        assert replies.keys() == {"yes", "no"}
        assert min(replies.values()) > 0.25 * replies.total()
    values = {reply for prompt, reply in readings if prompt.startswith("Default")}
    assert len(values) > 20
    assert all(value.isdigit() for value in values)


def test_all_families_of_the_profile_are_understood_and_restated():
    tasks = make_environment(LESSONS, 0).tasks("train").take(36)
    assert {task.info["family"] for task in tasks} == set(FAMILIES)
    for task in tasks:
        question = read_code_question(task.question)
        first = LESSONS.plan(task, "sound", random.Random(0)).replies[0]
        assert isinstance(first, str)
        assert first.startswith(f"Task: {question.asked}.\n")
        assert f'"""{question.listed}"""' in first
        assert question.listed in task.question
        assert question.target in question.asked
        assert question.options["ABCD".index(task.gold)] in task.question


def test_without_sub_llms_no_plan_calls_one():
    tasks = make_environment(LESSONS, 0).tasks("train").take(18)
    draw = random.Random(0)
    plans = [LESSONS.draw_plan(task, draw, sub_llms=False) for task in tasks for _ in range(20)]
    assert {plan.strategy for plan in plans} == CODE_STRATEGIES.keys() - LESSONS.batching
    assert not any("llm_batch" in reply for plan in plans for reply in plan.replies if isinstance(reply, str))


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        LESSONS.plan(Task("What is the method resolution order of `a.B`?", {}, "A"), "sound", random.Random(0))
