"""In every environment and scaffold the perfect answer scores 1.0 and the empty one 0.0, end to end."""

import asyncio
from functools import cache

import pytest

import rlm_env
from rlm_env.environment import Environment
from rlm_env.registry import environments, find_environment
from rlm_env.repl import ReplPools
from rlm_env.rollout import StopReason
from rlm_env.scaffolds import SCAFFOLDS, make_scaffold
from rlm_env.scoring import score
from tests.stubs import StubLLM, fenced

VARIANTS = {
    "oolong-rlm, easy": ("oolong-rlm", {"vocabulary": "easy", "lengths": [200, 400]}),
    "oolong-rlm, standard": ("oolong-rlm", {"lengths": [1000, 2000]}),
    "oolong-rlm, labeled": ("oolong-rlm", {"lengths": [1000], "with_labels": True}),
    "oolong-pairs-rlm, easy": ("oolong-pairs-rlm", {"vocabulary": "easy", "lines": [8, 24]}),
    "oolong-pairs-rlm, standard": ("oolong-pairs-rlm", {"lengths": [1000, 2000]}),
    "needle-rlm, tiny": ("needle-rlm", {"profile": "tiny"}),
    "needle-rlm, standard": ("needle-rlm", {"lengths": [8000]}),
    "verbatim-copy-rlm, tiny": ("verbatim-copy-rlm", {"profile": "tiny"}),
    "verbatim-copy-rlm, standard": ("verbatim-copy-rlm", {"lengths": [500, 1500]}),
    "math-python-rlm, tiny": ("math-python-rlm", {"profile": "tiny"}),
    "math-python-rlm, standard": ("math-python-rlm", {}),
    "codeqa-rlm, tiny": ("codeqa-rlm", {"profile": "tiny"}),
    "codeqa-rlm, standard": ("codeqa-rlm", {"lengths": [2000, 4000]}),
    "deepdive-rlm, tiny": ("deepdive-rlm", {"profile": "tiny"}),
    "deepdive-rlm, standard": ("deepdive-rlm", {}),
}


OPTIONS = {"summary": {"window": 2000}}
"""So that longer contexts are read in pieces."""
ENDS = (StopReason.READY, StopReason.MAX_TURNS)


TASKS = 64
NEIGHBORS = 16
"""Tasks of which each gets the next one's answer; those of the environments give it to hundreds."""


@cache
def make(variant: str) -> tuple[Environment, list[rlm_env.Task]]:
    name, options = VARIANTS[variant]
    environment = find_environment(name, seed=7, **options)
    return environment, rlm_env.RLMEnv(environment).tasks("eval").take(TASKS)


async def scores(scaffold_name: str, variant: str, n: int, pools: ReplPools, reply) -> list[float]:
    environment, tasks = make(variant)
    options = {"repl": {"preload": ()}, "max_turns": 1, **OPTIONS.get(scaffold_name, {})}
    scaffold = make_scaffold(scaffold_name, environment, options, pools=pools)

    async def one(task: rlm_env.Task) -> float:
        rollout = await scaffold.rollout(task, StubLLM(lambda messages: reply(environment, task)))
        assert rollout.stop_reason in ENDS, rollout.error
        return score(environment, task, rollout).value

    found: list[float] = []
    try:
        for start in range(0, n, 32):
            found += await asyncio.gather(*(one(task) for task in tasks[start : min(n, start + 32)]))
    finally:
        await scaffold.aclose()
    return found


def perfect(environment: Environment, task: rlm_env.Task) -> str:
    return environment.perfect_answer(task)


def in_code(environment: Environment, task: rlm_env.Task) -> str:
    return fenced(f'answer["content"] = {environment.perfect_answer(task)!r}\nanswer["ready"] = True')


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("scaffold", "n"), [("standard", TASKS), ("summary", 24)])
async def test_the_scaffolds_without_a_repl_can_score_one_and_zero(pools, scaffold, n, variant):
    assert set(await scores(scaffold, variant, n, pools, perfect)) == {1.0}
    assert set(await scores(scaffold, variant, n // 4, pools, lambda env, task: "")) == {0.0}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("scaffold", "n"), [("rlm", 32), ("rlm-tips", 8), ("rlm-nosub", 8)])
async def test_the_scaffolds_with_a_repl_can_score_one_and_zero(pools, scaffold, n, variant):
    assert set(await scores(scaffold, variant, n, pools, in_code)) == {1.0}
    assert set(await scores(scaffold, variant, 8, pools, lambda env, task: fenced("pass"))) == {0.0}


def test_every_scaffold_and_every_environment_is_here():
    assert {"standard", "summary", "rlm", "rlm-tips", "rlm-nosub"} == set(SCAFFOLDS)
    assert {name for name, _ in VARIANTS.values()} == set(environments())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_answer_to_another_task_is_not_right_and_no_answer_is_empty(variant):
    environment, tasks = make(variant)
    tasks = tasks[:NEIGHBORS]
    answers = [environment.perfect_answer(task) for task in tasks]
    assert all(answer.strip() for answer in answers)
    assert len({repr(task.gold) for task in tasks}) > 1
    for task, other, answer in zip(tasks, tasks[1:], answers[1:], strict=False):
        if other.gold != task.gold:
            assert score(environment, task, rlm_env.Rollout.from_answer(task, answer)).value < 1.0, (task, answer)
