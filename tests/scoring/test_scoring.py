"""A rollout scores the same by every path: evaluation, baselines, training, and the environment's own `score`."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rlm_env
from rlm_env.environment import Environment
from rlm_env.llm.base import ContextOverflow
from rlm_env.rollout import GroupMember, Rollout, Score, StopReason
from rlm_env.scaffolds.rlm import RLMConfig, RLMEnv
from rlm_env.scoring import score, score_rollout
from rlm_env.task import Task
from rlm_env.train.rl.rollouts import scored_rollout
from tests.stubs import fenced, script

QUICK_START = {"preload": ()}


class NothingFound(Environment):
    """Asks for matches where there are none, so the right answer is empty."""

    def __init__(self) -> None:
        self.judged: list[str] = []

    def tasks(self, split):
        yield Task("List the matches.", "abc", gold="")

    async def judge(self, task, rollout):
        self.judged.append(rollout.id)

    def score(self, task, rollout):
        return Score(float(rollout.answer.strip() == task.gold))


@pytest.fixture
async def env():
    async with RLMEnv(NothingFound(), RLMConfig(repl=QUICK_START)) as made:
        yield made


async def test_an_overflow_without_an_answer_is_zero_by_every_path_and_no_judge_is_asked(env):
    [task] = env.tasks("eval").take(1)
    root = script(ContextOverflow(99_999, 1024))
    rollout = await env.rollout(task, root)
    trained = await scored_rollout(
        "train", env, task, SimpleNamespace(version=0, newest_version=0, llm=root, sub=None), GroupMember("x")
    )
    assert rollout.stop_reason is trained.stop_reason is StopReason.CONTEXT_OVERFLOW
    assert trained.score is not None
    for found in (trained.score, env.score(task, rollout), await score_rollout(env.environment, task, rollout)):
        assert found.value == 0.0
        assert "did not fit" in found.explanation
    assert env.environment.judged == []


async def test_an_overflow_with_an_answer_is_judged_and_scored(env):
    [task] = env.tasks("eval").take(1)
    root = script(fenced('answer["content"] = "abc"'), ContextOverflow(99_999, 1024))
    rollout = await env.rollout(task, root, id="answered")
    assert rollout.stop_reason is StopReason.CONTEXT_OVERFLOW
    assert (await score_rollout(env.environment, Task("Q?", gold="abc"), rollout)).value == 1.0
    assert env.environment.judged == ["answered"]


async def test_an_empty_answer_that_is_right_is_right(env):
    [task] = env.tasks("eval").take(1)
    assert (await score_rollout(env.environment, task, Rollout.from_answer(task, ""))).value == 1.0


class Given(Environment):
    """Returns what it was given as the score."""

    def __init__(self, value) -> None:
        self.value = value

    def tasks(self, split):
        yield Task("Q?")

    def score(self, task, rollout):
        return self.value


def test_a_number_becomes_a_score_and_what_cannot_be_stored_is_the_scorers_error():
    task = Task("Q?")
    rollout = Rollout.from_answer(task, "")
    assert score(Given(True), task, rollout) == score(Given(1), task, rollout) == Score(1.0)
    for value in (1.5, math.nan):
        with pytest.raises(ValueError, match="lie in"):
            score(Given(value), task, rollout)
    no_numbers: list[Any] = ["x", math.inf, math.nan, None, object(), [1.0], 10**400]
    for wrong in no_numbers:
        with pytest.raises(ValueError, match=r"metrics\['f1'\] must be a finite number"):
            Score(1.0, metrics={"f1": wrong})
        late = Score(1.0)
        late.metrics["f1"] = wrong
        with pytest.raises(ValueError, match=r"metrics\['f1'\] must be a finite number"):
            score(Given(late), task, rollout)
    json.dumps(score(Given(Score(0.5, metrics={"f1": 0.1})), task, rollout).metrics)


def test_nothing_else_asks_judge_or_scorer():
    """Once five places scored rollouts, with different results for an overflow."""
    package = Path(rlm_env.__file__).parent
    asking = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"environment\.(score|judge)\(", path.read_text())
    }
    assert asking == {"scoring/__init__.py", "scoring/value.py", "scaffolds/rlm.py"}
