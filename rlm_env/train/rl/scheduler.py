"""Groups of rollouts in flight while the trainer works.

Owns the order of work: which groups run, which of them a step trains, what is thrown away, and that all of it is on
disk before it is trained. Invariants: no group is trained by more than `max_off_policy_steps` updates later than it was
begun; no group is trained twice, whatever kills the run; a slow or failed rollout never stalls a step for ever.
Not covered: the update itself (`trainer.py`), the engine (`engine.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from rlm_env.repl import ReplError, SharedContext
from rlm_env.rollout import GroupMember, Rollout
from rlm_env.runs.errors import RunStopped
from rlm_env.runs.folder import RunFolder
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix
from rlm_env.train.rl.groups import Batch, DropReason, RolloutGroup, member_of, reward_of
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.rollouts import RolloutEngine, all_of, scored_rollout
from rlm_env.train.rl.sampler import TaskDraw, TaskSampler

LARGE_CONTEXT = 2**20
"""Characters from which the rollouts of a group share one copy of their context."""


class Scheduler:
    """Makes rollouts ahead of the trainer; an async context manager.

    `batch = await next_batch()`, train it, `trained()`, and so on; `published(version)` whenever the engine has new
    weights, which may be while the next batch is trained. Meanwhile groups for the next `max_off_policy_steps` steps are made.
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
        """`trained`: steps that the weights have seen. What the journal holds beyond them is handed out again, from
        the rollouts on disk, before anything new is made."""
        self._config = config
        self._groups = config.groups
        self._mix = mix
        self._engine = engine
        self._folder = folder
        self._journal = journal
        self._sampler = TaskSampler(config.environments, mix.tasks, config.seed, config.groups.pools)
        self._trained = trained
        self._published = trained
        self._handed = trained
        self._drawing = asyncio.Lock()
        self._slots = asyncio.Semaphore(config.groups.concurrency)
        self._outstanding = 0
        """Groups in flight or done that no step has been given."""
        self._done: asyncio.Queue[RolloutGroup | BaseException] = asyncio.Queue()
        self._running: dict[asyncio.Task[RolloutGroup], RolloutGroup | None] = {}
        """Groups in flight; None while the task is still being made."""
        self._begun: dict[int, int] = {}
        """RolloutGroup in flight -> updates of the weights that its first rollout began with."""
        self._overtaken: list[RolloutGroup] = []
        """Groups that were given up in flight since the last batch."""
        self._closing = False
        self._reopened: deque[TaskDraw] = deque()
        self._stored: dict[int, dict[int, Rollout]] = defaultdict(dict)
        self._replayed: dict[int, Batch] = {}

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._load)
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
        """Whether the next batch was handed out before the run was killed: it needs no engine."""
        return self._handed + 1 in self._replayed

    @property
    def in_flight(self) -> int:
        """Groups that are being made."""
        return len(self._running)

    async def next_batch(self) -> Batch:
        """The groups of the next step. Raises RunStopped where no rollouts can be made."""
        start = time.monotonic()
        step = self._handed + 1
        if self.replaying:
            batch = self._replayed.pop(step)
            self._handed = step
        else:
            batch = await self._gather(Batch(step, []))
            self._outstanding -= len(batch.groups)
            self._folder.sync()
            self._journal.batch(step, [group.number for group in batch.groups])
            self._handed = step
            self._fill()
        batch.seconds = time.monotonic() - start
        return batch

    def trained(self) -> None:
        """The batch that was handed out is trained. Groups in flight that are too old for the next one are given up."""
        self._trained += 1
        for task, group in self._running.items():
            if (
                group
                and self._trained - self._begun.get(group.number, self._trained) > self._groups.max_off_policy_steps
            ):
                task.cancel()

    def published(self, version: int) -> None:
        """The engine has the weights after `version` updates: what is begun now may be trained later."""
        self._published = version
        if not self.replaying and not self._closing:
            self._fill()

    def fail(self, error: Exception) -> None:
        """There will be no more weights: `next_batch` raises `error` once it would have to wait."""
        self._done.put_nowait(error)

    async def _gather(self, batch: Batch) -> Batch:
        wanted = self._groups.per_step
        share = self._groups.max_zero_advantage_share if self._groups.replace_zero_advantage else 0.0
        replaceable = round(wanted * share / (1 - share))
        while len(batch.groups) < wanted:
            self._fill()
            group = await self._done.get()
            if isinstance(group, BaseException):
                raise group
            reason = self._why_not(group, len(batch.dropped[DropReason.ZERO_ADVANTAGE]) < replaceable)
            if reason is None:
                batch.groups.append(group)
                continue
            batch.dropped[reason].append(group)
            self._drop(group, reason)
            if (failed := len(batch.dropped[DropReason.FAILED])) > 3 * wanted:
                reasons = {rollout.error for rollout in group.rollouts if rollout.error}
                raise RunStopped("rollouts fail", f"{failed} groups of one step failed; the last: {reasons}", 1)
        batch.dropped[DropReason.OFF_POLICY] += self._overtaken
        self._overtaken = []
        batch.groups.sort(key=lambda group: group.number)
        return batch

    def _why_not(self, group: RolloutGroup, replace_zero_advantage: bool) -> DropReason | None:
        """Why a group cannot be trained in the next step; None where it can."""
        if len(group.scored) < self._groups.min_size:
            return DropReason.FAILED
        if self._trained - group.oldest_policy_version > self._groups.max_off_policy_steps:
            return DropReason.OFF_POLICY
        return DropReason.ZERO_ADVANTAGE if replace_zero_advantage and group.is_zero_advantage else None

    def _drop(self, group: RolloutGroup, reason: DropReason) -> None:
        self._outstanding -= 1
        self._journal.dropped(group.number, reason)

    def _fill(self) -> None:
        """Begins as many groups as staleness allows, and as the run still needs."""
        ahead = self._groups.max_off_policy_steps + self._published - self._handed + 1
        ahead = min(ahead, self._config.steps - self._handed)
        while self._outstanding < self._groups.per_step * ahead:
            self._outstanding += 1
            task = asyncio.create_task(self._make())
            self._running[task] = None
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[RolloutGroup]) -> None:
        group = self._running.pop(task)
        if group is not None:
            self._begun.pop(group.number, None)
        if self._closing:
            return
        if not task.cancelled():
            self._done.put_nowait(task.exception() or task.result())
        elif group is not None:
            self._overtaken.append(group)
            self._drop(group, DropReason.OFF_POLICY)
            self._fill()

    async def _make(self) -> RolloutGroup:
        """Draws a task and makes its group; what has not ended at the time-out is left out."""
        draw = await self._draw()
        group = RolloutGroup(draw.group, draw.environment, self._config)
        self._running[asyncio.current_task()] = group
        scaffold = self._mix.scaffold(draw.environment, draw.stage)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._groups.timeout), _shared(scaffold, draw.task) as context:
                await all_of(
                    *(self._member(group, member, draw, scaffold, context) for member in range(self._groups.size))
                )
        group.rollouts = _in_order(group.rollouts)
        if group.scored:
            self._sampler.observe(draw, fmean(group.scored))
        return group

    async def _draw(self) -> TaskDraw:
        """The next task, in order; in a thread, since a long context takes its time."""
        async with self._drawing:
            if self._reopened:
                return self._reopened.popleft()
            draw = await asyncio.to_thread(self._sampler.draw, self._handed)
            self._journal.drawn(draw)
            return draw

    async def _member(
        self, group: RolloutGroup, member: int, draw: TaskDraw, scaffold: RLMEnv, context: SharedContext | None
    ) -> None:
        stored = self._stored.get(draw.group, {}).get(member)
        if stored is not None:
            group.rollouts.append(stored)
            return
        async with self._slots:
            self._begun.setdefault(group.number, self._engine.version)
            place = GroupMember(draw.environment, draw.group, member)
            name = f"{draw.group:06}/{member}"
            rollout = await scored_rollout(name, scaffold, draw.task, self._engine, place, context)
        self._folder.append(rollout)
        group.rollouts.append(rollout)

    def _load(self) -> None:
        """Takes up what the journal and rollouts.jsonl say. Batches that the weights have not seen are handed out
        again; groups that were begun go on, with the rollouts that they have; the others still count for the pools."""
        history = self._journal.history
        later = {step: numbers for step, numbers in history.batches.items() if step > self._trained}
        wanted = {number for numbers in later.values() for number in numbers} | set(history.open)
        rewards: dict[int, list[float]] = defaultdict(list)
        for rollout in self._folder.rollouts():
            place = member_of(rollout)
            number = place.group
            if number is not None and number in wanted and rollout.score is not None:
                self._stored[number][place.member] = rollout
            reward = reward_of(rollout, self._groups.unfinished)
            if number is not None and reward is not None:
                rewards[number].append(reward)
        for step, numbers in sorted(later.items()):
            groups = [
                RolloutGroup(
                    number,
                    history.drawn[number].environment,
                    self._config,
                    _in_order(self._stored.pop(number).values()),
                )
                for number in numbers
            ]
            self._replayed[step] = Batch(step, groups)
        still_open = set(history.open)
        for number, place in history.drawn.items():
            draw = self._sampler.repeat(number, place.environment, place.stage, place.index)
            if number in still_open:
                self._reopened.append(draw)
            elif number in rewards:
                self._sampler.observe(draw, fmean(rewards[number]))


def _in_order(rollouts: Iterable[Rollout]) -> list[Rollout]:
    return sorted(rollouts, key=lambda rollout: member_of(rollout).member)


@contextlib.asynccontextmanager
async def _shared(scaffold: RLMEnv, task: Task) -> AsyncIterator[SharedContext | None]:
    """The task's context loaded once for the group, where that pays."""
    context, shared = task.context, None
    if isinstance(context, Path) or (isinstance(context, str | bytes) and len(context) >= LARGE_CONTEXT):
        with contextlib.suppress(ReplError):  # then each rollout opens its own, and says what is wrong
            shared = await scaffold.share(task)
    try:
        yield shared
    finally:
        if shared is not None:
            await shared.close()
