"""One scored rollout on an engine that may die meanwhile, and many of them at once.

Which rollouts are made is decided in `scheduler.py` and `held_out.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError
from rlm_env.repl import SharedContext
from rlm_env.rollout import GroupMember, Rollout, StopReason
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scoring import score_rollout
from rlm_env.scoring.errors import TRACEBACK, describe_exception, failed, traceback_text
from rlm_env.task import Task

ATTEMPTS = 3
"""How often a rollout is begun before it counts as failed."""


class RolloutEngine(Protocol):
    """The part of `Fleet` that rollouts use."""

    @property
    def version(self) -> int:
        """Optimizer steps that its weights have seen; of several engines the fewest."""
        ...

    @property
    def newest_version(self) -> int:
        """Of several engines the most."""
        ...

    @property
    def llm(self) -> LLM: ...

    @property
    def sub(self) -> LLM | None:
        """None: the sub-LLM is `llm`."""
        ...

    async def restart(self) -> None: ...

    async def judge_is_up(self) -> None: ...


async def scored_rollout(
    name: str,
    scaffold: RLMEnv,
    task: Task,
    engine: RolloutEngine,
    place: GroupMember,
    context: SharedContext | None = None,
    away: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Rollout:
    """Makes and scores a rollout; each is tried up to `ATTEMPTS` times, and a rollout is not made again because its
    scorer failed.

    A rollout that failed each time has an `error` and no score. Its `group` is `place` with the versions of the weights
    that it began and ended with. A dead engine is waited for, within `away`, and a dead judge before what it judges is
    scored again. Raises what `engine.restart` and `engine.judge_is_up` raise, and CancelledError.
    """
    for attempt in range(1, ATTEMPTS + 1):
        version = engine.version
        try:
            rollout = await scaffold.rollout(task, engine.llm, engine.sub, id=name, context=context)
        except EngineUnavailable as error:
            rollout = failed(scaffold.open_record(task, name), error)
            with away():
                await engine.restart()
        except Exception as error:
            rollout = failed(scaffold.open_record(task, name), error)
        rollout.group = replace(place, policy_version=version, last_policy_version=engine.newest_version)
        if rollout.stop_reason not in (StopReason.ERROR, StopReason.CANCELLED):
            await _score(scaffold, task, rollout, engine, away)
            return rollout
        if attempt == ATTEMPTS:
            return rollout
    raise AssertionError("unreachable: the last attempt returns")


async def _score(
    scaffold: RLMEnv,
    task: Task,
    rollout: Rollout,
    engine: RolloutEngine,
    away: Callable[[], AbstractContextManager[None]],
) -> None:
    """Scores a rollout in place. Where judge or scorer fail each time, it has an error and no score."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            rollout.score = await score_rollout(scaffold.environment, task, rollout)
        except Exception as error:
            if attempt == ATTEMPTS:
                role = "judge" if isinstance(error, LLMError) else "scorer"
                rollout.error = f"{role}: {describe_exception(error)}"
                rollout.info[TRACEBACK] = traceback_text(error)
            elif isinstance(error, EngineUnavailable):
                with away():
                    await engine.judge_is_up()
        else:
            return


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
