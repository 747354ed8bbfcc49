"""Answers over which a scorer computes for seconds cost no other rollout any time."""

from __future__ import annotations

import asyncio

import pytest

import rlm_env
from rlm_env.registry import find_environment
from rlm_env.repl import SubError
from rlm_env.rollout import Rollout
from rlm_env.scoring import score_rollout

pytest.importorskip("math_verify", reason="the extra `math` is not installed")

ENDLESS = [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^8)!}", "$9^{9^{9^{9}}}$", r"\boxed{\sum_{k=1}^{10^9} k^{k}}"]
CELL = "import time\nfor _ in range(5):\n    llm_batch(['x'])\n    time.sleep(0.02)"


async def echo(prompts: list) -> list[str | SubError]:
    return ["ok"] * len(prompts)


@pytest.mark.slow
async def test_cells_of_other_rollouts_are_booked_their_own_time_only():
    environment = find_environment("math-python-rlm", num_tasks=1)
    task = next(iter(environment.tasks("eval")))
    await score_rollout(environment, task, Rollout.from_answer(task, r"\boxed{1}"))
    async with rlm_env.ReplPool(rlm_env.ReplConfig(preload=())) as pool:
        repls = [await pool.open(llm_batch=echo) for _ in range(4)]
        ended = False

        async def cells(repl) -> list[tuple[float, bool]]:
            steps = []
            while not ended:
                step = await repl.run(CELL, timeout=3)
                steps.append((step.seconds, step.timed_out))
            return steps

        running = [asyncio.create_task(cells(repl)) for repl in repls]
        await asyncio.sleep(0.3)
        found = await asyncio.gather(
            *(score_rollout(environment, task, Rollout.from_answer(task, answer)) for answer in ENDLESS)
        )
        ended = True
        steps = [step for task_steps in await asyncio.gather(*running) for step in task_steps]
    assert [one.value for one in found] == [0.0] * len(ENDLESS)  # the comparison was ended, as in the original
    assert not any(timed_out for _, timed_out in steps)
    assert max(seconds for seconds, _ in steps) < 1.5  # 0.1 s of its own
