"""One scored rollout on an engine that may die under it, and many at once.

Covered: scoring, another try where engine or REPL failed, which weights it began with, ending together. Not covered:
which rollouts are made (`scheduler.py`, `held_out.py`).
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


class Engine(Protocol):
    """What rollouts need of `TrainEngine`."""

    version: int

    @property
    def llm(self) -> LLM: ...

    async def restart(self) -> None: ...


async def scored_rollout(
    name: str,
    scaffold: RLMEnv,
    task: Task,
    engine: Engine,
    place: GroupMember,
    context: SharedContext | None = None,
) -> Rollout:
    """A rollout with its score; without one where it failed `ATTEMPTS` times, and then `error` says how.

    Its `group` is `place` with the version of the weights that it began with. A dead engine is started again. Raises
    what `engine.restart` raises, and CancelledError.
    """
    for _ in range(ATTEMPTS):
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
        rollout.group = replace(place, policy_version=version)
        if rollout.score is not None:
            break
    return rollout


async def all_of(*work: Coroutine[Any, Any, None]) -> None:
    """Awaits all. The first exception ends the others and is raised as it is, once they have ended; so does a
    cancellation."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(name: str, task: Task, error: str) -> Rollout:
    return Rollout(id=name, task_id=task.id, stop_reason=StopReason.ERROR, error=error)
