"""A mistake in a scorer or a judge costs the score and nothing else, and is found before anything is paid."""

from __future__ import annotations

import asyncio

import pytest

from rlm_env.environment import Environment
from rlm_env.evals.grading import JUDGED, TRACEBACK, drop_verdict, grade, is_unscored, try_scorer
from rlm_env.llm.base import LLMError
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.task import Task

TASK = Task("How many?", "text", "7", "t0")


class Exact(Environment):
    def tasks(self, split):
        return [TASK]

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)


class Flawed(Exact):
    def score(self, task, rollout):
        return {"a": 1.0}["missing key"]


class Judged(Exact):
    refuses = False

    async def judge(self, task, rollout):
        if self.refuses:
            raise LLMError("http://x/v1: /chat/completions answered 401: no key")
        rollout.info["verdict"] = "yes" if rollout.answer == task.gold else "no"

    def score(self, task, rollout):
        return float(rollout.info["verdict"] == "yes")


async def test_an_answer_outlives_its_scorer():
    rollout = Rollout.from_answer(TASK, "7")
    error = await grade(Flawed(), TASK, rollout)
    assert isinstance(error, KeyError)
    assert is_unscored(rollout)
    assert rollout.stop_reason is StopReason.READY
    assert rollout.error is not None
    assert rollout.error.startswith("scorer: KeyError: 'missing key' (test_grading.py, line ")
    assert rollout.error.endswith(", in score)")
    assert 'return {"a": 1.0}["missing key"]' in rollout.info[TRACEBACK]
    assert await grade(Exact(), TASK, rollout) is None
    assert (rollout.error, rollout.score and rollout.score.value) == (None, 1.0)
    assert TRACEBACK not in rollout.info


async def test_a_metric_that_is_no_number_is_the_scorer_s_fault():
    class Worded(Exact):
        def score(self, task, rollout):
            score = Score(0.0)
            score.metrics["a"] = "x"
            return score

    rollout = Rollout.from_answer(TASK, "7")
    await grade(Worded(), TASK, rollout)
    assert is_unscored(rollout)
    assert rollout.error is not None
    assert "Score.metrics['a'] must be a finite number, got 'x'" in rollout.error
    with pytest.raises(ConfigError, match="Nothing was sampled yet"):
        await try_scorer(Worded(), TASK)


async def test_a_verdict_is_used_again_or_dropped():
    rollout = Rollout.from_answer(TASK, "7")
    await grade(Judged(), TASK, rollout)
    assert rollout.info[JUDGED] == ["verdict"]
    refusing = Judged()
    refusing.refuses = True
    assert await grade(refusing, TASK, rollout, ask_judge=False) is None
    assert rollout.score is not None
    drop_verdict(rollout)
    assert rollout.info == {}
    await grade(refusing, TASK, rollout)
    assert rollout.error == "judge: LLMError: http://x/v1: /chat/completions answered 401: no key"


async def test_an_interrupt_leaves_the_answer_unscored():
    class Slow(Judged):
        async def judge(self, task, rollout):
            await asyncio.sleep(60)

    rollout = Rollout.from_answer(TASK, "7")
    work = asyncio.create_task(grade(Slow(), TASK, rollout))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert is_unscored(rollout)
    assert rollout.error == "scorer: it was interrupted"


async def test_a_scorer_is_tried_on_the_right_answer():
    assert await try_scorer(Exact(), TASK) is None
    assert await try_scorer(Judged(), TASK) is None
    with pytest.raises(ConfigError, match=r"cannot score the right answer to its first task \(t0\): KeyError"):
        await try_scorer(Flawed(), TASK)


async def test_a_right_answer_that_scores_less_is_told():
    class Halved(Exact):
        def score(self, task, rollout):
            return 0.5

    warning = await try_scorer(Halved(), TASK)
    assert warning is not None
    assert "scores 0.5, not 1" in warning


async def test_a_judge_that_refuses_stops_the_run_before_it_begins():
    refusing = Judged()
    refusing.refuses = True
    with pytest.raises(RunStopped, match="answered 401: no key") as stop:
        await try_scorer(refusing, TASK)
    assert stop.value.exit_code == 3


async def test_an_environment_that_knows_no_right_answer_is_not_tried():
    assert await try_scorer(Flawed(), Task("How many?", "text", None, "t0")) is None
