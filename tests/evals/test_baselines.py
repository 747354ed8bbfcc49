"""Baselines: no policy knows the answer to its own task, and none that fails spoils a report."""

from __future__ import annotations

import pytest

from rlm_env.environment import Environment
from rlm_env.evals.baselines import baseline_policies, measure_baselines
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


async def measured(golds: str) -> dict[str, float | None]:
    environment = Labels(golds)
    baselines = await measure_baselines(environment, environment.made)
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


async def test_a_judge_reads_the_baselines_too():
    environment = Judged("a b")
    found = {
        baseline.name: baseline.score.mean
        for baseline in await measure_baselines(environment, environment.made)
        if baseline.score
    }
    assert found["prompt injection"] == 1.0  # a judge that falls for it is found out
    assert found["majority"] == 0.0


def test_an_environments_own_policy_takes_the_place_of_a_general_one():
    class Own(Labels):
        def baselines(self):
            return {"random": lambda task: "x"}

    environment = Own("a b")
    policies = baseline_policies(environment, environment.made)
    assert policies["random"](environment.made[0]) == "x"
    assert environment.score(environment.made[0], Rollout.from_answer(environment.made[0], "a")) == 1.0
