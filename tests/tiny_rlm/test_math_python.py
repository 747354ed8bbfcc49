"""tiny-rlm's lessons of math-python-rlm: teachers in the real REPL, and the scripted calculator."""

from __future__ import annotations

import random

import pytest

from rlm_env.task import Task
from tests.packages import needs
from tests.tiny_rlm.playing import check_strategies
from tiny_rlm.math_python import COMPUTE, STRATEGIES, MathPythonLessons, Sum, asked, read_sum, without_carrying
from tiny_rlm.profile import make_environment

LESSONS = MathPythonLessons()


@pytest.mark.slow
async def test_every_strategy_ends_and_only_the_sound_ones_are_always_right():
    needs("math_verify")
    async with make_environment(LESSONS, 0) as env:
        scores = await check_strategies(env, LESSONS, right=["ask"])  # its scripted sub-LLM is
    assert set(scores["no_answer"] + scores["first_terms"] + scores["other_operator"]) == {0.0}


def test_sums_are_read_and_computed():
    for task in make_environment(LESSONS, 0).tasks("train").take(40):
        question = read_sum(asked(task))
        assert str(question.value) == task.gold
        assert task.question.endswith(f" {question}?")


def test_a_head_carries_nothing():
    right, wrong = Sum((875, 114), "+"), Sum((875, 117), "+")
    assert (without_carrying(right), without_carrying(wrong)) == (989, 982)
    assert without_carrying(Sum((528, 793), "-")) == 275
    assert without_carrying(Sum((58, 72), "*")) == 3516
    assert without_carrying(Sum((5, 10, 15), "+")) == 10


def test_readings_are_sums_and_their_values():
    tasks = make_environment(LESSONS, 0).tasks("train").take(4)
    readings = LESSONS.readings(tasks, random.Random(0))
    assert [reply["content"] for _, reply in readings] == [task.gold for task in tasks]
    assert all(prompt["content"].startswith(COMPUTE) for prompt, _ in readings)


def test_strategies_that_ask_are_named():
    task = make_environment(LESSONS, 0).tasks("train").take(1)[0]
    calling = {name for name in STRATEGIES if "llm_batch" in LESSONS.plan(task, name, random.Random(0)).replies[0]}
    assert calling == LESSONS.batching


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        LESSONS.plan(Task("What is 1 + 1?", gold="2"), "sound", random.Random(0))
