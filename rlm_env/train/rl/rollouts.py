"""One scored rollout on an engine that may die meanwhile, and many of them at once.

Which rollouts are made is decided in `scheduler.py` and `held_out.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError
from rlm_env.repl import SharedContext
from rlm_env.rollout import GroupMember, Rollout, StopReason
from rlm_env.runs.errors import RunStopped
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
    *,
    made: Rollout | None = None,
    keep: Callable[[Rollout], object] = lambda rollout: None,
) -> Rollout:
    """Makes and scores a rollout; each is tried up to `ATTEMPTS` times, and a rollout is not made again because its
    scorer failed.

    A rollout that failed each time has an `error` and no score. Its `group` is `place` with the versions of the weights
    that it began and ended with. A dead engine is waited for, within `away`, and a dead judge before what it judges is
    scored again. `made`: a rollout that has only to be scored. `keep` gets one whose scoring is cut short, by a
    cancellation or a judge that is gone for good. Raises what `engine.restart` and `engine.judge_is_up` raise, and
    CancelledError.
    """
    score = partial(_kept_if_cut_short, scaffold, task, engine, away, keep)
    if made is not None:
        return await score(made)
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
            return await score(rollout)
        if attempt == ATTEMPTS:
            return rollout
    raise AssertionError("unreachable: the last attempt returns")


async def _kept_if_cut_short(
    scaffold: RLMEnv,
    task: Task,
    engine: RolloutEngine,
    away: Callable[[], AbstractContextManager[None]],
    keep: Callable[[Rollout], object],
    rollout: Rollout,
) -> Rollout:
    """Scores a rollout, which was paid for: `keep` gets it where that does not end."""
    try:
        await _score(scaffold, task, rollout, engine, away)
    except BaseException:
        with suppress(RunStopped):  # a disk that refuses; what has happened before is the reason
            keep(rollout)
        raise
    return rollout


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
