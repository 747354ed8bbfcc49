"""One cell on its way: its clock, its limits, and how it is stopped (SIGINT first, SIGKILL only then)."""

from __future__ import annotations

import asyncio

from rlm_env.repl.host.cell_report import CellReport
from rlm_env.repl.host.clock import StepClock
from rlm_env.repl.host.lateness import Lateness
from rlm_env.repl.host.process import ReplProcess

_LONG = 0.5
"""Seconds after which a step is long enough for a look at how busy the machine is."""
_LOOK = 1.0
"""Seconds between looks from then on: what a thread waited for a core can be read only as long as it lives."""
_SHORTEST = 0.001
_BUSY_POLL = 0.25
"""Seconds between looks at the CPU clock while a batch is in flight."""


class Step:
    """A cell that runs in a process. Made before the cell is sent; `report` resolves to None where the process died."""

    def __init__(
        self,
        process: ReplProcess,
        lateness: Lateness,
        timeout: float | None,
        wall_timeout: float | None,
        grace: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self._lateness = lateness
        lateness.enter()
        self.clock = StepClock(process.cpu_seconds, process.queued_seconds, lateness.seconds)
        self.report: asyncio.Future[CellReport | None] = loop.create_future()
        self.timed_out: str | None = None
        """Which limit was reached, in words."""
        self._booked: tuple[float, float] | None = None
        self._outcome: list[CellReport | None] = []
        """The result of `report`, kept here because a cancellation of `report` at that moment would lose it."""
        self._loop = loop
        self._timeout, self._wall_timeout, self._grace = timeout, wall_timeout, grace
        self._timer: asyncio.TimerHandle | None = None
        self._stage = 0
        process.ended.add_done_callback(self._died)

    def begin(self) -> None:
        """The cell was sent: from now on its limits are watched. Most cells end before the first look."""
        limits = [limit for limit in (self._timeout, self._wall_timeout, _LONG) if limit is not None]
        self._timer = self._loop.call_later(min(limits), self.watch)

    def watch(self) -> None:
        """Checks the limits, and again when the next one could be reached."""
        self.clock.watch_queue()
        code_seconds = self.clock.code_seconds
        waits = [_LOOK]
        if self._timeout is not None:
            left = self._timeout - code_seconds
            if left <= 0:
                return self.stop(f"it ran longer than {self._timeout:g} s")
            waits.append(max(left, _BUSY_POLL) if self.clock.is_busy else max(left, _SHORTEST))
        if self._wall_timeout is not None:
            left = self._wall_timeout - self.clock.wall_seconds
            if left <= 0:
                return self.stop(f"it took longer than {self._wall_timeout:g} s, waiting included")
            waits.append(left)
        self._timer = self._loop.call_later(min(waits), self.watch)
        return None

    def stop(self, why: str) -> None:
        """SIGINT, again after the grace period, SIGKILL after another."""
        if self.report.done():
            return
        self._cancel_timer()
        self.timed_out = self.timed_out or why
        self.process.batches.close()
        if self._stage < 2:
            self._stage += 1
            self.process.interrupt()
            self._timer = self._loop.call_later(self._grace, self.stop, why)
        else:
            self.process.kill(f"did not react to an interrupt ({self.timed_out}) and was killed")

    def abandon(self) -> None:
        """Stops the cell because its call was cancelled. The next call waits for `report`."""
        if self.report.cancelled():
            self.report = self._loop.create_future()
            if self._outcome:
                self.report.set_result(self._outcome[0])
        self.stop("its call was cancelled")

    def done(self, report: CellReport) -> None:
        """The process has reported."""
        self._finish(report)

    def lost(self) -> None:
        """The process has shown the first sign of its end; it is being made sure of, and its files are removed."""
        self._cancel_timer()
        self._book()

    def _book(self) -> None:
        if self._booked is None:
            self._booked = self.clock.booked

    @property
    def booked(self) -> tuple[float, float]:
        """`StepClock.booked` at the cell's end: what the host does afterwards is not the cell's."""
        return self._booked or self.clock.booked

    def _died(self, _ended: asyncio.Future[str]) -> None:
        """The process has ended."""
        self._finish(None)

    def _finish(self, report: CellReport | None) -> None:
        """Resolves `report`."""
        self._cancel_timer()
        self._book()
        if not self._outcome:
            self._lateness.leave()
            self.process.ended.remove_done_callback(self._died)  # the process may have many more steps before it
        self._outcome.append(report)
        if not self.report.done():
            self.report.set_result(report)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
