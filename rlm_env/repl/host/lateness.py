"""How late the event loop is: time in which the host did not look, whatever kept it.

A cell's report waits until the loop gets round to it. The host's own lateness must not be booked to the cell, so while
steps run, a timer of this loop measures how late it is called.
"""

from __future__ import annotations

import asyncio
import time

TICK = 0.01
"""Seconds between looks."""
_SLACK = 0.004
"""Seconds that a timer is late on an idle loop."""
_LINGER = 100
"""Ticks without a step after which it stops: starting it for each of many short steps would cost more."""


class Lateness:
    """Measures between `enter` and `leave`. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._idle = 0
        self._total = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """A step begins."""
        self._users += 1
        if self._timer is None:
            self._idle = 0
            self._wait(time.monotonic())

    def leave(self) -> None:
        """A step has ended."""
        self._users -= 1

    def seconds(self, now: float) -> float:
        """Seconds of lateness so far, `now` (`time.monotonic()`) included. Only differences mean something."""
        late = now - self._due
        return self._total + late if late > _SLACK and self._timer is not None else self._total

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, now: float) -> None:
        self._due = now + TICK
        self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        self._total = self.seconds(now)
        self._idle = 0 if self._users else self._idle + 1
        if self._idle > _LINGER:
            self._timer = None
        else:
            self._wait(now)
