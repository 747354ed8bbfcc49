"""Decides which groups of rollouts are made, which of them a step trains, and which are dropped.

Groups are made while the trainer works, as few steps ahead as the measured times allow (`lookahead.py`), and handed out
oldest first, so that samples are as little off-policy as can be.

Invariants:
- No group is trained more than `max_off_policy_steps` updates after it was begun. Where the next update would carry a
  group beyond that, the trainer waits for it rather than drop it, so that slow rollouts are trained as often as they
  are drawn. A group's own time limit ends the wait.
- All rollouts of a batch are on disk before it is trained, and no group is trained twice, whatever kills the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from statistics import fmean
from types import TracebackType
from typing import Self

from rlm_env.runs.errors import RunStopped
from rlm_env.runs.folder import RunFolder
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix
from rlm_env.train.rl.group_maker import GroupMaker, GroupProgress
from rlm_env.train.rl.groups import Batch, DropReason, RolloutGroup
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.lookahead import Lookahead
from rlm_env.train.rl.rollouts import RolloutEngine
from rlm_env.train.rl.sampler import TaskDraw, TaskSampler
from rlm_env.train.rl.unfinished_work import UnfinishedWork, load_unfinished

COST_ALONE = 0.5
"""Share of the groups of a step that may differ in cost alone; more are replaced, as those without advantages are."""
FAILED_PER_STEP = 3
"""A run stops where more than this many times `per_step` groups of one step fail."""


class Scheduler:
    """Makes batches for the trainer; an async context manager.

    `batch = await next_batch()`, train it, `trained()`, and so on; `published(version)` whenever the engine has new
    weights, which may be while the next batch is trained.
    """

    def __init__(
        self,
        config: TrainConfig,
        mix: EnvironmentMix,
        engine: RolloutEngine,
        folder: RunFolder,
        journal: Journal,
        trained: int = 0,
    ) -> None:
        """`trained`: steps that the weights have seen. Later batches in the journal are handed out again, with the
        rollouts on disk, before anything new is made."""
        self._config = config
        self._groups = config.groups
        self._folder = folder
        self._journal = journal
        self._sampler = TaskSampler(config.environments, mix.tasks, config.seed, config.groups.pools, mix.any_task)
        self._maker = GroupMaker(config, mix, engine, folder)
        self._lookahead = Lookahead(config.groups)
        self._trained = trained
        self._published = trained
        self._handed = trained
        self._drawing = asyncio.Lock()
        self._running: dict[asyncio.Task[RolloutGroup], GroupProgress] = {}
        self._ended: list[RolloutGroup] = []
        """Groups that have ended and were not looked at yet."""
        self._ready: list[RolloutGroup] = []
        """Groups that can be trained."""
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        """Set when a group has ended or there is a failure."""
        self._waiting = False
        """True while the trainer waits for a batch."""
        self._handed_at: float | None = None
        self._trained_at: float | None = None
        self._closing = False
        self._work = UnfinishedWork()

    async def __aenter__(self) -> Self:
        self._work = await asyncio.to_thread(
            load_unfinished, self._config, self._folder, self._journal.history, self._sampler, self._trained
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def replaying(self) -> bool:
        """True if the next batch was handed out before the run was killed: it needs no engine."""
        return self._handed + 1 in self._work.batches

    @property
    def in_flight(self) -> int:
        """Groups that are being made."""
        return len(self._running)

    async def next_batch(self) -> Batch:
        """The groups of the next step. Raises RunStopped where too many rollouts fail."""
        step = self._handed + 1
        if self.replaying:
            batch = self._work.batches.pop(step)
            self._handed = step
            return batch
        clock = asyncio.get_running_loop()
        asked_at = clock.time()
        period = None if self._handed_at is None else asked_at - self._handed_at
        if period is not None:
            self._lookahead.step_ended(period)
        self._waiting = True
        try:
            batch = await self._gather(step)
        finally:
            self._waiting = False
        self._folder.sync()
        self._journal.batch(step, [group.number for group in batch.groups])
        self._handed = step
        self._fill()
        self._handed_at = clock.time()
        batch.seconds = self._handed_at - asked_at
        idle = self._maker.idle_seconds()
        batch.engine_idle = 0.0 if period is None else idle / max(period + batch.seconds, 1e-9)
        return batch

    def trained(self) -> None:
        """The batch that was handed out is trained."""
        self._trained += 1
        self._trained_at = asyncio.get_running_loop().time()

    def published(self, version: int) -> None:
        """The engine has the weights after `version` updates."""
        self._published = version
        if self._trained_at is not None and version == self._trained:
            self._lookahead.sync_ended(asyncio.get_running_loop().time() - self._trained_at)
        if not self.replaying and not self._closing:
            self._fill()

    def fail(self, error: Exception) -> None:
        """There will be no more weights: `next_batch` raises `error` once it would have to wait."""
        self._failure = error
        self._changed.set()

    async def _gather(self, step: int) -> Batch:
        """Waits for enough groups, and for those that this step is the last to train; takes the oldest."""
        batch = Batch(step, [])
        clock = asyncio.get_running_loop()
        full_at = None
        while True:
            self._fill()
            self._changed.clear()
            self._sort_out(batch)
            full = len(self._ready) >= self._groups.per_step
            if full and not self._overdue(step):
                break
            if self._failure is not None:
                raise self._failure
            full_at = clock.time() if full and full_at is None else full_at
            with contextlib.suppress(TimeoutError):  # then there is one more straggler
                async with asyncio.timeout_at(self._next_straggler()):
                    await self._changed.wait()
        self._ready.sort(key=lambda group: group.number)
        batch.groups, self._ready = self._ready[: self._groups.per_step], self._ready[self._groups.per_step :]
        batch.seconds_overdue = 0.0 if full_at is None else clock.time() - full_at
        return batch

    def _overdue(self, step: int) -> bool:
        """True if groups in flight could not be trained in time, were this step trained without them.

        Groups of one version of the weights have the same last step, and each step takes `per_step` groups: those in
        flight must fit into the steps that are left after this one.
        """
        running = [run.policy_version for run in self._running.values() if run.policy_version is not None]
        ready = [group.oldest_policy_version for group in self._ready]
        for later_steps in range(self._groups.max_off_policy_steps + 1):
            version = step - 1 - self._groups.max_off_policy_steps + later_steps
            in_flight = sum(other <= version for other in running)
            room = self._groups.per_step * later_steps
            if in_flight > room and sum(other <= version for other in ready) < self._groups.per_step:
                return True
        return False

    def _sort_out(self, batch: Batch) -> None:
        """Moves groups that have ended to those that are ready, or drops them."""
        share = self._groups.max_zero_advantage_share if self._groups.replace_zero_advantage else 0.0
        replaceable = round(self._groups.per_step * share / (1 - share))
        ended, self._ended = self._ended, []
        ready, self._ready = self._ready, []
        for group in ready:
            self._keep(group, batch, DropReason.OFF_POLICY if self._is_too_old(group) else None)
        for group in sorted(ended, key=lambda group: group.number):
            if len(group.scored) < self._groups.min_size:
                self._keep(group, batch, DropReason.FAILED)
                if len(batch.dropped[DropReason.FAILED]) > FAILED_PER_STEP * self._groups.per_step:
                    raise _too_many_failures(batch.dropped[DropReason.FAILED])
            elif self._is_too_old(group):
                self._keep(group, batch, DropReason.OFF_POLICY)
            elif len(batch.dropped[DropReason.ZERO_ADVANTAGE]) < replaceable and self._teaches_little(group):
                self._keep(group, batch, DropReason.ZERO_ADVANTAGE)
            else:
                self._keep(group, batch)
        self._fill()

    def _teaches_little(self, group: RolloutGroup) -> bool:
        """Whether a group is to be replaced: it has no advantages, or differs in cost alone, as half of those that are
        ready do already. Under a cost penalty hardly two rollouts are equal: without this bound, groups that all solve
        would crowd out those that scores can be learned from."""
        if not group.differs_in_cost_alone:
            return group.is_zero_advantage
        alike = sum(other.differs_in_cost_alone for other in self._ready)
        room = max(self._groups.per_step, len(self._ready) + 1)
        return alike >= math.ceil(room * COST_ALONE)

    def _keep(self, group: RolloutGroup, batch: Batch, reason: DropReason | None = None) -> None:
        """Keeps the group, or drops it for a reason."""
        if reason is None:
            self._ready.append(group)
        else:
            batch.dropped[reason].append(group)
            self._journal.dropped(group.number, reason)

    def _is_too_old(self, group: RolloutGroup) -> bool:
        """Whether a group has more off-policy steps than are allowed."""
        return self._trained - group.oldest_policy_version > self._groups.max_off_policy_steps

    def _fill(self) -> None:
        """Begins groups: for the next steps as far ahead as is needed, and one more for each straggler that the
        trainer would have to wait for; never more than can be trained in time, or than the run needs."""
        most = self._groups_until(self._groups.max_off_policy_steps)
        wanted = self._groups_until(self._lookahead.steps) + (self._stragglers() if self._waiting else 0)
        while len(self._running) + len(self._ended) + len(self._ready) < min(wanted, most):
            self._begin()

    def _groups_until(self, ahead: int) -> int:
        """Groups in all steps from the next one to that in `ahead` steps after the newest weights in the engine."""
        steps = min(ahead + self._published - self._handed + 1, self._config.steps - self._handed)
        return self._groups.per_step * max(0, steps)

    def _stragglers(self) -> int:
        now = asyncio.get_running_loop().time()
        return sum(at <= now for at in self._straggling_at())

    def _next_straggler(self) -> float | None:
        """When a further group in flight becomes a straggler; None if there is nothing to wait for."""
        now = asyncio.get_running_loop().time()
        return min((at for at in self._straggling_at() if now < at < math.inf), default=None)

    def _straggling_at(self) -> list[float]:
        limit = self._lookahead.straggler_seconds
        return [run.begun + limit for run in self._running.values() if run.begun is not None]

    def _begin(self) -> None:
        """Begins one group."""
        progress = GroupProgress()
        task = asyncio.create_task(self._make(progress))
        self._running[task] = progress
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[RolloutGroup]) -> None:
        """A group has ended, or failed."""
        progress = self._running.pop(task)
        if self._closing or task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._failure = error
        else:
            self._ended.append(task.result())
            if progress.begun is not None:
                self._lookahead.group_ended(asyncio.get_running_loop().time() - progress.begun, progress.work)
        self._changed.set()

    async def _make(self, progress: GroupProgress) -> RolloutGroup:
        """Draws a task and makes its group."""
        draw = await self._draw()
        group = await self._maker.make(draw, self._work.rollouts.pop(draw.group, {}), progress)
        if group.scored:
            self._sampler.observe(draw, fmean(group.scored))
            self._journal.scored(draw, fmean(group.scored))
        return group

    async def _draw(self) -> TaskDraw:
        """The next task, in order; in a thread, since a long context takes its time."""
        async with self._drawing:
            if self._work.draws:
                return self._work.draws.popleft()
            draw = await asyncio.to_thread(self._sampler.draw, self._handed)
            self._journal.drawn(draw)
            return draw


def _too_many_failures(groups: list[RolloutGroup]) -> RunStopped:
    """The end of a run in which too many groups of one step failed, with all that kept rollouts from being trained."""
    rollouts = [(one, reward) for group in groups for one, reward in zip(group.rollouts, group.rewards, strict=True)]
    limits = Counter(one.stop_reason for one, reward in rollouts if one.score is not None and reward is None)
    timed_out = sum(group.timed_out for group in groups)
    reasons = []
    if timed_out:
        reasons.append(f"{timed_out} were closed by groups.timeout before their rollouts had ended: raise it")
    if limits:
        which = ", ".join(f"{reason} {count}" for reason, count in limits.most_common())
        reasons.append(
            f'{limits.total()} rollouts ended at a limit ({which}), and groups.unfinished = "drop" leaves them out: '
            'raise that limit, or take groups.unfinished = "score" or "zero"'
        )
    reasons += sorted({one.error or "a rollout has no score" for one, _ in rollouts if one.score is None})
    few = f"fewer than {groups[0].config.groups.min_size} of their rollouts have a reward (groups.min_size)"
    text = f"{len(groups)} groups of one step failed: {'; '.join(reasons) or few}"
    return RunStopped("rollouts fail", text, 1)
