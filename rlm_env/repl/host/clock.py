"""The clock of one step, kept by the host.

Code time is wall time while no batch is in flight, and CPU time of the process while one is: waiting for sub-LLMs is
free, computing while a batch waits is not. In long steps, the time in which the process was ready to run but had no
core is left out: a busy machine is not the code's fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class StepClock:
    """Starts when it is made. `cpu` reads the CPU seconds of the process, `queued` the seconds for which it has
    waited for a core; both count from its start."""

    def __init__(self, cpu: Callable[[], float], queued: Callable[[], float]) -> None:
        self._cpu = cpu
        self._queued = queued
        self._queued_before: float | None = None
        self.started = time.monotonic()
        self._code = 0.0
        self._waited = 0.0
        self._busy = False
        self._since = self.started
        self._cpu_since = 0.0

    def busy(self, busy: bool) -> None:
        """Says that a first batch is in flight (True), or that none is left (False)."""
        if busy != self._busy:
            self._book()
            self._busy = busy
            if busy:
                self._cpu_since = self._cpu()

    def _book(self) -> None:
        """Books the time since the last call as code, waiting or queueing."""
        now = time.monotonic()
        passed, self._since = now - self._since, now
        queued = 0.0
        if self._queued_before is not None:
            total = self._queued()
            queued, self._queued_before = max(total - self._queued_before, 0.0), total
        if self._busy:
            cpu = self._cpu()
            self._code += min(max(cpu - self._cpu_since, 0.0), passed)
            self._cpu_since = cpu
            self._waited += passed
        else:
            self._code += max(passed - queued, 0.0)

    def watch_queue(self) -> None:
        """From now on, time spent waiting for a core is left out. A look costs 20 µs: only long steps are worth it."""
        if self._queued_before is None:
            self._book()
            self._queued_before = self._queued()

    @property
    def code_seconds(self) -> float:
        """Time of the code alone: without waits in `llm_batch`, and without waiting for a core."""
        self._book()
        return self._code

    @property
    def wait_seconds(self) -> float:
        """Wall time with a batch in flight."""
        self._book()
        return self._waited

    @property
    def wall_seconds(self) -> float:
        """All time since the start."""
        return time.monotonic() - self.started

    @property
    def is_busy(self) -> bool:
        return self._busy
