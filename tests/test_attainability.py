"""In every environment and arm the perfect answer scores 1.0 and the empty one 0.0, end to end through the arm."""

import asyncio

import pytest

import rlm_env
from rlm_env.arms import make_arm
from rlm_env.env import score
from rlm_env.registry import find_environment
from rlm_env.rollout import StopReason
from tests.stubs import StubLLM, fenced

VARIANTS = {
    "oolong-rlm, easy": ("oolong-rlm", {"vocabulary": "easy", "lengths": [200, 400]}),
    "oolong-rlm, standard": ("oolong-rlm", {"lengths": [1000, 2000]}),
    "oolong-rlm, labelled": ("oolong-rlm", {"lengths": [1000], "with_labels": True}),
    "oolong-pairs-rlm, easy": ("oolong-pairs-rlm", {"vocabulary": "easy", "lines": [8, 24]}),
    "oolong-pairs-rlm, standard": ("oolong-pairs-rlm", {"lengths": [1000, 2000]}),
    "needle-rlm, tiny": ("needle-rlm", {"profile": "tiny"}),
    "needle-rlm, standard": ("needle-rlm", {"lengths": [8000]}),
    "verbatim-copy-rlm, tiny": ("verbatim-copy-rlm", {"profile": "tiny"}),
    "verbatim-copy-rlm, standard": ("verbatim-copy-rlm", {"lengths": [500, 1500]}),
    "math-python-rlm, tiny": ("math-python-rlm", {"profile": "tiny"}),
    "math-python-rlm, standard": ("math-python-rlm", {}),
}


async def scores(arm_name: str, variant: str, n: int, reply) -> list[float]:
    name, options = VARIANTS[variant]
    environment = find_environment(name, seed=7, **options)
    tasks = rlm_env.RLMEnv(environment).tasks("eval").take(n)
    arm = make_arm(arm_name, environment, {"repl": {"preload": ()}, "max_turns": 1})

    async def one(task: rlm_env.Task) -> float:
        rollout = await arm.rollout(task, StubLLM(lambda messages: reply(environment, task)))
        assert rollout.stop_reason in (StopReason.READY, StopReason.MAX_TURNS), rollout.error
        return score(environment, task, rollout).value

    found: list[float] = []
    try:
        for start in range(0, n, 32):
            found += await asyncio.gather(*(one(task) for task in tasks[start : start + 32]))
    finally:
        await arm.aclose()
    return found


def in_code(environment, task) -> str:
    return fenced(f'answer["content"] = {environment.perfect_answer(task)!r}\nanswer["ready"] = True')


@pytest.mark.parametrize("variant", VARIANTS)
async def test_the_standard_arm_can_score_one_and_zero(variant):
    perfect = await scores("standard", variant, 600, lambda env, task: env.perfect_answer(task))
    assert set(perfect) == {1.0}
    assert set(await scores("standard", variant, 600, lambda env, task: "")) == {0.0}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_the_rlm_arm_can_score_one_and_zero(variant):
    assert set(await scores("rlm", variant, 96, in_code)) == {1.0}
    assert set(await scores("rlm", variant, 32, lambda env, task: fenced("pass"))) == {0.0}
