"""Makes the rollouts of one group: slots, the time limit, a context that its members share.

Which groups are made, and when, is decided in `scheduler.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from rlm_env.context import in_files
from rlm_env.repl import ReplError, SharedContext
from rlm_env.rollout import GroupMember, Rollout
from rlm_env.runs.folder import RunFolder
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix
from rlm_env.train.rl.groups import RolloutGroup, member_of, rollout_id
from rlm_env.train.rl.rollouts import RolloutEngine, all_of, scored_rollout
from rlm_env.train.rl.sampler import TaskDraw

LARGE_CONTEXT = 2**20
"""Contexts of at least this many characters are loaded once for all rollouts of a group."""


@dataclass(slots=True)
class GroupProgress:
    """A group in flight."""

    begun: float | None = None
    """When its first rollout got a slot, by the event loop's clock; None before."""
    policy_version: int | None = None
    """Version of the weights that its oldest rollout began with; None before."""
    work: float = 0.0
    """Seconds of its rollouts, summed."""


class GroupClock:
    """The time limit of a group. It begins with the first rollout, and stands still while rollouts wait for an engine
    that has died."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        """`limit`: an entered one without a deadline."""
        self._limit = limit
        self._seconds = seconds
        self._left = seconds
        self._waiting = 0

    def begin(self) -> float:
        """The time at which the group begins, which is now."""
        now = asyncio.get_running_loop().time()
        self._limit.reschedule(now + self._seconds)
        return now

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The clock stands still until all bodies have ended."""
        clock, deadline = asyncio.get_running_loop(), self._limit.when()
        if self._limit.expired():  # this rollout is about to be cancelled
            yield
            return
        if deadline is not None:
            self._left = deadline - clock.time()
            self._limit.reschedule(None)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._limit.reschedule(clock.time() + self._left)


class GroupMaker:
    """Makes groups; at most `groups.concurrency` rollouts are in flight at once."""

    def __init__(self, config: TrainConfig, mix: EnvironmentMix, engine: RolloutEngine, folder: RunFolder) -> None:
        self._config = config
        self._mix = mix
        self._engine = engine
        self._folder = folder
        self._slots = asyncio.Semaphore(config.groups.concurrency)
        self._in_flight = 0
        self._idle_since: float | None = None
        self._idle_seconds = 0.0

    async def make(self, draw: TaskDraw, stored: Mapping[int, Rollout], progress: GroupProgress) -> RolloutGroup:
        """Makes the group of a draw. `stored`: rollouts that exist already, by member, of which some may have to be
        scored yet. `progress` is kept up to date.

        The time limit of the group starts with its first rollout, not while it waits for a slot, and stands still while
        a dead engine is waited for. At the limit the group is closed with the rollouts that have ended. Every rollout
        is in the run's folder when this returns.
        """
        scored = [rollout for rollout in stored.values() if rollout.score is not None]
        group = RolloutGroup(draw.group, draw.environment, self._config, scored)
        if stored:
            progress.policy_version = min(member_of(rollout).policy_version for rollout in stored.values())
        scaffold = self._mix.scaffold(draw.environment, draw.stage)
        try:
            async with asyncio.timeout(None) as limit, _shared_context(scaffold, draw.task) as context:
                clock = GroupClock(limit, self._config.groups.timeout)
                await all_of(
                    *(
                        self._member(group, member, draw, scaffold, context, progress, clock, stored.get(member))
                        for member in range(self._config.groups.size)
                        if member not in stored or stored[member].score is None
                    )
                )
        except TimeoutError:
            group.timed_out = True
        group.rollouts.sort(key=lambda rollout: member_of(rollout).member)
        return group

    def idle_seconds(self) -> float:
        """Time since the last call in which no rollout was in flight."""
        now = asyncio.get_running_loop().time()
        if self._in_flight == 0:
            self._idle_seconds += 0.0 if self._idle_since is None else now - self._idle_since
            self._idle_since = now
        idle, self._idle_seconds = self._idle_seconds, 0.0
        return idle

    async def _member(
        self,
        group: RolloutGroup,
        member: int,
        draw: TaskDraw,
        scaffold: RLMEnv,
        context: SharedContext | None,
        progress: GroupProgress,
        clock: GroupClock,
        made: Rollout | None,
    ) -> None:
        """One rollout of a group: waits for a slot, rolls out, scores, stores. `made`: it has only to be scored."""
        async with self._slots, self._counted(progress):
            if progress.begun is None:
                progress.begun = clock.begin()
            if progress.policy_version is None:
                progress.policy_version = self._engine.version
            place = GroupMember(draw.environment, draw.group, member)
            name = rollout_id(draw.group, member)
            rollout = await scored_rollout(
                *(name, scaffold, draw.task, self._engine, place, context, clock.stopped),
                made=made,
                keep=self._folder.append,
            )
        group.rollouts.append(self._folder.append(rollout))

    @contextlib.asynccontextmanager
    async def _counted(self, progress: GroupProgress) -> AsyncIterator[None]:
        """Counts a rollout in flight, its time, and the time without any."""
        clock = asyncio.get_running_loop()
        start = clock.time()
        if self._in_flight == 0 and self._idle_since is not None:
            self._idle_seconds += start - self._idle_since
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._idle_since = clock.time()
            progress.work += self._idle_since - start


@contextlib.asynccontextmanager
async def _shared_context(scaffold: RLMEnv, task: Task) -> AsyncIterator[SharedContext | None]:
    """The task's context, loaded once for the group if it is large."""
    context, shared = task.context, None
    if in_files(context) or (isinstance(context, str | bytes) and len(context) >= LARGE_CONTEXT):
        with contextlib.suppress(ReplError):  # then each rollout loads it for itself, and reports what is wrong
            shared = await scaffold.share(task)
    try:
        yield shared
    finally:
        if shared is not None:
            await shared.close()
