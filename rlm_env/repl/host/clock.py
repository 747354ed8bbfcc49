"""The clock of one step, kept by the host.

Code time is wall time while no batch is in flight, and CPU time of the process while one is: waiting for sub-LLMs is
free, computing while a batch waits is not. Two waits are left out, because they are not the code's fault: the time in
which the host itself was late (`lateness.py`), and in long steps that in which a thread of the process was ready to run
but had no core (`core_queue.py`). Neither is left out as far as the process computed meanwhile: what its own threads
queue for is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class StepClock:
    """Starts when it is made. `cpu` reads the CPU seconds of the process, `late` the seconds by which the host was late
    until a given moment; both count from their own start. `queued` reads the seconds for which the process has waited
    for a core since it was last called."""

    def __init__(self, cpu: Callable[[], float], queued: Callable[[], float], late: Callable[[float], float]) -> None:
        self._cpu = cpu
        self._queued = queued
        self._late = late
        self._queue_watched = False
        self.started = self._since = now = time.monotonic()
        self._late_at_start = self._late_before = late(now)
        self._cpu_before = cpu()
        self._code = 0.0
        self._waited = 0.0
        self._busy = False

    def busy(self, busy: bool) -> None:
        """Says that a first batch is in flight (True), or that none is left (False)."""
        if busy != self._busy:
            self._book()
            self._busy = busy
            if self._queue_watched and not busy:
                self._queued()  # what it waited behind its batch is not left out of what comes now

    def _book(self) -> None:
        now = time.monotonic()
        passed, self._since = now - self._since, now
        total = self._late(now)
        excused, self._late_before = total - self._late_before, total
        if self._queue_watched and not self._busy:
            excused += self._queued()
        total = self._cpu()
        computed, self._cpu_before = min(max(total - self._cpu_before, 0.0), passed), total
        if self._busy:
            self._code += computed
            self._waited += passed
        else:
            self._code += max(passed - excused, computed)

    def watch_queue(self) -> None:
        """From the last booking on, time spent waiting for a core is left out. A look costs 30 µs: only long steps are
        worth it. The first may count waits before this step, for no more than the time that it is about."""
        self._queue_watched = True

    @property
    def code_seconds(self) -> float:
        self._book()
        return self._code

    @property
    def booked(self) -> tuple[float, float]:
        """`code_seconds`, and the wall time with a batch in flight, at one look."""
        self._book()
        return self._code, self._waited

    @property
    def wall_seconds(self) -> float:
        """Wall time, without that by which the host was late."""
        now = time.monotonic()
        return now - self.started - (self._late(now) - self._late_at_start)

    @property
    def is_busy(self) -> bool:
        return self._busy
