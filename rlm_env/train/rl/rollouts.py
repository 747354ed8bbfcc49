"""One scored rollout on an engine that may die meanwhile, and many of them at once.

Which rollouts are made is decided in `scheduler.py` and `held_out.py`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from rlm_env.llm.base import LLM, EngineUnavailable
from rlm_env.repl import SharedContext
from rlm_env.rollout import GroupMember, Rollout, StopReason
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scoring import score_rollout
from rlm_env.task import Task

ATTEMPTS = 3
"""How often a rollout is begun before it counts as failed."""


class RolloutEngine(Protocol):
    """The part of `TrainEngine` that rollouts use."""

    version: int
    """Optimizer steps that its weights have seen."""

    @property
    def llm(self) -> LLM: ...

    async def restart(self) -> None: ...


async def scored_rollout(
    name: str,
    scaffold: RLMEnv,
    task: Task,
    engine: RolloutEngine,
    place: GroupMember,
    context: SharedContext | None = None,
) -> Rollout:
    """Makes and scores a rollout; where engine, REPL or scorer fail, up to `ATTEMPTS` times.

    A rollout that failed each time has an `error` and no score. Its `group` is `place` with the version of the weights
    that it began with. A dead engine is started again. Raises what `engine.restart` raises, and CancelledError.
    """
    for attempt in range(1, ATTEMPTS + 1):
        version = engine.version
        try:
            rollout = await scaffold.rollout(task, engine.llm, id=name, context=context)
            if rollout.stop_reason not in (StopReason.ERROR, StopReason.CANCELLED):
                rollout.score = await score_rollout(scaffold.environment, task, rollout)
        except EngineUnavailable as error:
            rollout = _failed(name, task, f"EngineUnavailable: {error}")
            await engine.restart()
        except Exception as error:
            rollout = _failed(name, task, f"{type(error).__name__}: {error}")
            rollout.info["traceback"] = traceback.format_exc()
        if rollout.score is not None or attempt == ATTEMPTS:
            rollout.group = replace(place, policy_version=version)
            return rollout
    raise AssertionError("unreachable: the last attempt returns")


async def all_of(*work: Coroutine[Any, Any, None]) -> None:
    """Awaits all coroutines. The first exception, or a cancellation, cancels the others; it is raised when they have
    ended."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(name: str, task: Task, error: str) -> Rollout:
    """The record of a rollout that failed."""
    return Rollout(id=name, task_id=task.id, stop_reason=StopReason.ERROR, error=error)
