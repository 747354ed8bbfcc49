"""One scored rollout of a training run: what is tried again, and what is kept where something fails for good."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from rlm_env.environment import Environment
from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import GroupMember, Rollout, StopReason, read_rollouts
from rlm_env.runs.folder import RunFolder
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from rlm_env.train.rl.rollouts import scored_rollout
from tests.stubs import fenced, script
from tests.train.scheduling import Scaffold, config, scheduling

DONE = fenced('answer["content"] = "1"; answer["ready"] = True')
TASK = Task("Q?", "", gold="1", id="t")


class Failing(Environment):
    """Its scorer, its judge or its tools raise the first few times."""

    score_in_process = True

    def __init__(self, scorer=(), judge=(), tools=()) -> None:
        self.errors = {"scorer": [*scorer], "judge": [*judge], "tools": [*tools]}

    def tasks(self, split):
        yield TASK

    def fail(self, who: str) -> None:
        if self.errors[who]:
            raise self.errors[who].pop(0)

    def tools(self, task):
        self.fail("tools")
        return ()

    async def judge(self, task, rollout):
        self.fail("judge")

    def score(self, task, rollout):
        self.fail("scorer")
        return float(rollout.answer == task.gold)


async def made(environment: Failing, judge: Callable[[], None] = lambda: None) -> tuple[Rollout, int, int]:
    """The rollout, how often the model was asked, and how often the engine was started again. `judge`: what comes of
    waiting for the judge."""
    root, restarts = script(DONE), []

    async def restart() -> None:
        restarts.append(1)

    async def judge_is_up() -> None:
        judge()

    engine = SimpleNamespace(version=7, newest_version=7, llm=root, sub=None, restart=restart, judge_is_up=judge_is_up)
    async with RLMEnv(environment) as env:
        rollout = await scored_rollout("r", env, TASK, engine, GroupMember("x"))
    assert rollout.group == GroupMember("x", policy_version=7, last_policy_version=7)
    return rollout, len(root.seen), len(restarts)


async def test_a_scorer_that_fails_once_is_asked_again_and_nothing_is_sampled_again():
    rollout, asked, _ = await made(Failing(scorer=[KeyError("once")]))
    assert (rollout.score.value, rollout.error, asked) == (1.0, None, 1)


async def test_a_scorer_that_fails_for_good_costs_the_score_alone():
    rollout, asked, _ = await made(Failing(scorer=[KeyError("a"), KeyError("b"), KeyError("c")]))
    assert rollout.score is None
    assert rollout.error.startswith("scorer: KeyError: 'c' (test_rollouts.py, line ")
    assert "in score" in rollout.info["traceback"]
    assert (rollout.answer, rollout.stop_reason, asked) == ("1", StopReason.READY, 1)


async def test_a_judge_that_has_died_is_waited_for_and_one_that_is_gone_for_good_ends_the_run():
    gone = [EngineUnavailable("the judge is gone")]
    waited: list[int] = []
    rollout, asked, restarts = await made(Failing(judge=[*gone]), lambda: waited.append(1))
    assert (rollout.score.value, rollout.error, asked, restarts, waited) == (1.0, None, 1, 0, [1])

    def for_good() -> None:
        raise EngineUnavailable("none of 2 engines is left")

    with pytest.raises(EngineUnavailable, match="none of 2"):
        await made(Failing(judge=[*gone]), for_good)


async def test_a_rollout_that_does_not_begin_says_what_it_was_about():
    rollout, asked, _ = await made(Failing(tools=[ValueError("no tools")] * 3))
    assert (rollout.question, rollout.gold, rollout.task_id) == ("Q?", "1", "t")
    assert rollout.error.startswith("ValueError: no tools")
    assert asked == 0


async def test_a_rollout_that_cannot_be_stored_costs_no_other(tmp_path):
    class Odd(Scaffold):
        async def rollout(self, task, llm, sub=None, *, id, context):
            rollout = await super().rollout(task, llm, id=id, context=context)
            rollout.question = task.question
            if id.endswith("/0"):
                rollout.info["odd"] = math.nan
            return rollout

    async with scheduling(tmp_path, config(), Odd()) as (scheduler, _):
        batch = await scheduler.next_batch()
    assert [group.rewards for group in batch.groups] == [[None, 1.0, 0.0, 1.0]] * 2
    failed = [rollout for rollout in read_rollouts(tmp_path / "rollouts.jsonl") if rollout.error]
    assert failed
    assert all("cannot be stored as JSON" in rollout.error and rollout.question for rollout in failed)
    assert {rollout.group.member for rollout in failed} == {0}


def test_what_is_stored_in_place_of_a_rollout_that_has_no_form_as_json(tmp_path):
    rollout = Rollout(
        "r", "t", "env", "rlm", question="Q?", gold="1", answer=object(), info={"repeat": 2, "x": math.inf}
    )
    rollout.root_usage.prompt_tokens = 12
    with RunFolder(tmp_path, resume=False) as folder:
        stored = folder.append(rollout)
    (read,) = read_rollouts(tmp_path / "rollouts.jsonl")
    assert read == stored
    assert (read.id, read.task_id, read.question, read.gold, read.root_usage.prompt_tokens) == ("r", "t", "Q?", "1", 12)
    assert read.info["repeat"] == 2
    assert read.stop_reason is StopReason.ERROR
