"""Where an environment's `score` runs: in a scorer process if the environment can be sent there, else in a thread.

The environment is sent as it is at the time of a score, without what cannot be pickled (`carry.py`).
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import itertools
import os
import sys
import warnings
import weakref
from dataclasses import dataclass
from typing import Any

from rlm_env.environment import Environment, environment_name
from rlm_env.rollout import Rollout, Score
from rlm_env.scoring.carry import NotCarried, dumps_leniently, is_importable
from rlm_env.scoring.errors import ScorerKilled
from rlm_env.scoring.pool import Job, ScorerPool
from rlm_env.scoring.thread import ThreadScorer
from rlm_env.scoring.value import score
from rlm_env.task import Task

SMALL_BYTES = 2**16
"""An environment up to this size is pickled for every score, and sent again if it has changed; a larger one only after
its scorer raised an exception."""
MAX_BYTES = 256 * 2**20
"""A larger environment is scored in a thread."""


@dataclass(slots=True)
class Carried:
    """An environment as scorer processes get it."""

    id: int
    version: int = 0
    payload: bytes = b""
    in_thread: str | None = None
    """Why it is scored in a thread; empty if that was asked for."""
    runner: ThreadScorer | None = None


class _Scorers:
    """The pool of this process, and what is known of its environments."""

    def __init__(self) -> None:
        self.pool: ScorerPool | None = None
        self._carried: dict[int, tuple[Any, Carried]] = {}
        self._ids = itertools.count()

    async def submit(self, environment: Environment, carried: Carried, task: Task, rollout: Rollout) -> Score:
        """The score from a scorer process."""
        if self.pool is None:
            self.pool = ScorerPool()
        key, name = (carried.id, carried.version), environment_name(environment)
        job = Job(key, carried.payload, list(sys.path), task, rollout, environment.score_limits, name)
        self.pool.submit(job)
        return await asyncio.wrap_future(job.future)

    def carried(self, environment: Environment) -> Carried:
        """The entry of an environment; forgotten with it."""
        key = id(environment)
        if key not in self._carried:
            try:
                held: Any = weakref.ref(environment, lambda _: self._carried.pop(key, None))
            except TypeError:  # a class with slots
                held = environment
            self._carried[key] = (held, Carried(next(self._ids)))
        return self._carried[key][1]

    def refresh(self, environment: Environment, carried: Carried) -> bool:
        """Pickles the environment again; True if it has changed. Raises NotCarried."""
        payload = dumps_leniently(environment)
        if len(payload) > MAX_BYTES:
            raise NotCarried(f"it takes {len(payload) / 2**20:,.0f} MiB")
        if payload == carried.payload:
            return False
        carried.payload, carried.version = payload, carried.version + 1
        return True

    def close(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close()

    def forget(self) -> None:
        """In a forked child: processes and threads are the parent's."""
        if self.pool is not None:
            self.pool.abandon()
        self.pool = None
        self._carried.clear()


_scorers = _Scorers()
_warned: dict[str | tuple[str, type[Warning], int], int] = {}
"""What `warnings` has shown already."""
atexit.register(_scorers.close)
os.register_at_fork(after_in_child=_scorers.forget)


def close_scorers() -> None:
    """Ends all scorer processes; the next score starts new ones. Done by itself at exit."""
    _scorers.close()


async def score_apart(environment: Environment, task: Task, rollout: Rollout) -> Score:
    """`value.score` in a scorer process, or in a thread if that is asked for or cannot be avoided.

    Raises what it raises, and ScorerKilled.
    """
    carried = _scorers.carried(environment)
    if carried.in_thread is None:
        _decide(environment, carried)
    if carried.in_thread is None:
        try:
            return await _in_pool(environment, carried, task, rollout)
        except NotCarried as error:
            _choose_thread(environment, carried, str(error))
    return await _in_thread(environment, carried, task, rollout)


async def _in_pool(environment: Environment, carried: Carried, task: Task, rollout: Rollout) -> Score:
    """Raises NotCarried if a thread must do it."""
    if len(carried.payload) <= SMALL_BYTES:
        _scorers.refresh(environment, carried)
    try:
        return await _scorers.submit(environment, carried, task, rollout)
    except ScorerKilled:
        raise
    except Exception:
        # The environment may have changed since it was sent.
        if len(carried.payload) <= SMALL_BYTES or not _scorers.refresh(environment, carried):
            raise
    return await _scorers.submit(environment, carried, task, rollout)


async def _in_thread(environment: Environment, carried: Carried, task: Task, rollout: Rollout) -> Score:
    """The score from a thread of this process."""
    if carried.runner is None or carried.runner.lost:
        carried.runner = ThreadScorer()
    name = environment_name(environment)
    limit = environment.score_limits.wall_seconds
    return await carried.runner.score(lambda: score(environment, task, rollout), limit, name)


def _decide(environment: Environment, carried: Carried) -> None:
    """Chooses the thread where that is known beforehand."""
    kind = type(environment)
    if environment.score_in_process:
        carried.in_thread = ""
    elif not is_importable(kind):
        in_script = kind.__module__ == "__main__" and "<" not in kind.__qualname__
        place = "in the script or notebook itself" if in_script else "inside a function"
        _choose_thread(environment, carried, f"its class is defined {place}, where no other process can import it")


def _choose_thread(environment: Environment, carried: Carried, reason: str) -> None:
    """Scores this environment in a thread from now on, and warns once: at the line of its `score`, which its author
    knows, and not at one of ours."""
    carried.in_thread = reason
    code = getattr(inspect.unwrap(type(environment).score), "__code__", _choose_thread.__code__)
    warnings.warn_explicit(
        f"{environment_name(environment)} is scored in a thread of this process: {reason}. That is fine while score() "
        "is quick; a slow one holds everything up and cannot be stopped. Move the class to a module and import it, "
        "with nothing that cannot be pickled in score(), or set `score_in_process = True` on it to have no warning.",
        RuntimeWarning,
        code.co_filename,
        code.co_firstlineno,
        registry=_warned,
    )
