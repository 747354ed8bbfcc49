"""Baselines: no policy knows the answer to its own task, and none that fails spoils a report."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import pytest

from rlm_env.environment import Environment
from rlm_env.evals.baselines import BaselineLog, baseline_policies, measure_baselines
from rlm_env.rollout import Rollout
from rlm_env.task import Task


class Labels(Environment):
    """Right where the gold occurs in the answer at all: gullible on purpose."""

    name = "labels"

    def __init__(self, golds: str) -> None:
        self.made = [Task(f"What is {i}?", "text", gold, f"t{i}") for i, gold in enumerate(golds.split())]

    def tasks(self, split):
        return self.made

    def score(self, task, rollout):
        return float(task.gold in rollout.answer.split())

    def baselines(self):
        return {"first": lambda task: self.made[0].gold, "broken": lambda task: task.context.index("nowhere")}


async def measured(golds: str, kind: type[Labels] = Labels, *, judged: bool = False) -> dict[str, float | None]:
    environment = kind(golds)
    with (
        tempfile.TemporaryDirectory() as folder,
        BaselineLog.open(Path(folder, "b.jsonl"), len(environment.made), judged=judged) as log,
    ):
        baselines, complete = await measure_baselines(environment, environment.made, log)
    assert complete
    return {baseline.name: baseline.score and baseline.score.mean for baseline in baselines}


async def test_frequent_answers_and_lists_of_answers_are_worth_what_the_scorer_gives_them():
    found = await measured("a a a a a a b b c c")
    assert found["majority"] == 0.6
    assert found["label dump"] == 1.0
    assert found["first"] == 0.6
    assert 0.0 < found["random"] < 1.0
    assert found["no context"] == found["prompt injection"] == 0.0
    assert found["broken"] is None


async def test_the_answer_to_the_task_itself_is_not_known():
    found = await measured(" ".join(map(str, range(100, 140))))
    assert found["majority"] == found["label dump"] == found["random"] == 0.0


@pytest.mark.parametrize("golds", ["a", "a b"])
async def test_few_tasks_are_no_reason_to_fail(golds):
    assert (await measured(golds))["majority"] == 0.0


class Judged(Labels):
    """Right where its judge, which believes a "yes", says so."""

    async def judge(self, task, rollout):
        rollout.info["verdict"] = "yes" in rollout.answer.lower()

    def score(self, task, rollout):
        return float(rollout.info["verdict"])


async def test_a_judge_reads_the_baselines_if_it_is_asked_to():
    found = await measured("a b", Judged, judged=True)
    assert found["prompt injection"] == 1.0  # a judge that falls for it is found out
    assert found["majority"] == 0.0


async def test_a_judge_is_not_asked_unless_that_is_wanted():
    class Paid(Labels):
        async def judge(self, task, rollout):
            raise AssertionError("a question that costs money")

    assert (await measured("a a b", Paid))["majority"] == 2 / 3
    assert set((await measured("a b", Judged)).values()) == {None}  # its scores need the verdict


async def test_what_was_measured_is_not_measured_again(tmp_path):
    asked: list[str] = []

    class Counted(Labels):
        score_in_process = True

        def score(self, task, rollout):
            asked.append(task.id)
            if task.id == "t1" and len(asked) < 12:
                time.sleep(0.5)
            return super().score(task, rollout)

    environment = Counted("a b c")
    found = []
    for seconds in (0.2, None):
        with BaselineLog.open(tmp_path / "b.jsonl", 3, judged=False) as log:
            found.append(await measure_baselines(environment, environment.made, log, seconds=seconds))
    assert [complete for _, complete in found] == [False, True]
    again = len(asked)
    with BaselineLog.open(tmp_path / "b.jsonl", 3, judged=False) as log:
        assert (await measure_baselines(environment, environment.made, log))[0] == found[1][0]
    assert len(asked) == again
    with BaselineLog.open(tmp_path / "b.jsonl", 4, judged=False) as log:
        assert not log.scores  # other tasks, other right answers of the others


async def test_an_interrupt_is_heard_while_a_policy_works(tmp_path):
    class Slow(Labels):
        def baselines(self):
            return {"slow": lambda task: time.sleep(30) or ""}

    environment = Slow("a b")
    with BaselineLog.open(tmp_path / "b.jsonl", 2, judged=False) as log:
        work = asyncio.create_task(measure_baselines(environment, environment.made, log))
        await asyncio.sleep(0.3)
        start = time.monotonic()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert time.monotonic() - start < 5


async def test_an_environment_without_right_answers_has_baselines_all_the_same():
    class Unknown(Labels):
        def perfect_answer(self, task):
            raise NotImplementedError

    assert (await measured("a b", Unknown))["no context"] == 0.0


def test_an_environments_own_policy_takes_the_place_of_a_general_one():
    class Own(Labels):
        def baselines(self):
            return {"random": lambda task: "x"}

    environment = Own("a b")
    policies = baseline_policies(environment, environment.made)
    assert policies["random"](environment.made[0]) == "x"
    assert environment.score(environment.made[0], Rollout.from_answer(environment.made[0], "a")) == 1.0
