"""How many steps ahead of the trainer groups are begun: as few as the measured times allow.

A group that is begun while a step is trained can be trained in the next step at the earliest, and is then one update
off-policy. A group that is begun after the update is on-policy, but the trainer waits for it. So groups are begun ahead
only where that wait would be longer than `GroupsConfig.max_wait_share` allows.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, median

from rlm_env.train.rl.config import GroupsConfig

STEPS = 5
"""Steps whose times count, the last ones."""
STRAGGLER = 2.0
"""A group that takes this many times as long as the median counts as a straggler."""
RELUCTANCE = 1.25
"""Groups are begun fewer steps ahead only if that would do with times this much longer, so that the decision does not
flip where two are nearly as good."""


class Lookahead:
    """Measures how long groups, steps and updates of the engine take; decides how far ahead groups are begun."""

    def __init__(self, config: GroupsConfig) -> None:
        self._config = config
        self._group_seconds: deque[float] = deque(maxlen=max(16, STEPS * config.per_step))
        self._work_seconds: deque[float] = deque(maxlen=max(16, STEPS * config.per_step))
        self._step_seconds: deque[float] = deque(maxlen=STEPS)
        self._sync_seconds: deque[float] = deque(maxlen=STEPS)
        self.steps = config.max_off_policy_steps if config.max_wait_share == 0 else 0
        """Steps ahead, at most `max_off_policy_steps`. Without measurements 0, unless the trainer may never wait."""

    def group_ended(self, seconds: float, work: float) -> None:
        """`seconds`: from the start of the first rollout to the end of the last. `work`: of all rollouts, summed."""
        self._group_seconds.append(seconds)
        self._work_seconds.append(work)

    def step_ended(self, seconds: float) -> None:
        """`seconds`: from the moment a batch was handed out until the next one was asked for."""
        self._step_seconds.append(seconds)
        self._decide()

    def sync_ended(self, seconds: float) -> None:
        """`seconds`: from the end of an update until the engine had the new weights."""
        self._sync_seconds.append(seconds)

    @property
    def straggler_seconds(self) -> float:
        """A group that takes longer is a straggler; infinite before there are measurements."""
        return STRAGGLER * median(self._group_seconds) if self._group_seconds else math.inf

    def _decide(self) -> None:
        """Sets the number of steps from the measured times."""
        if self._group_seconds and self._step_seconds:
            more, fewer = self._needed(1.0), self._needed(RELUCTANCE)
            self.steps = min(self._config.max_off_policy_steps, max(more, min(self.steps, fewer)))

    def _needed(self, factor: float) -> int:
        """The fewest steps ahead with which the trainer waits no longer than it may."""
        step = max(median(self._step_seconds), 1e-9)
        share = self._config.max_wait_share
        longest_wait = step * share / (1 - share)
        sync = median(self._sync_seconds) if self._sync_seconds else 0.0
        latency = factor * (median(self._group_seconds) + sync)
        work = factor * fmean(self._work_seconds) * self._config.per_step / self._config.concurrency
        ahead = math.ceil((latency - longest_wait) / step) if latency > longest_wait else 0
        # With all slots in use, one step ahead keeps the engine busy while a step is trained; more gains nothing.
        return max(ahead, int(work > longest_wait))
