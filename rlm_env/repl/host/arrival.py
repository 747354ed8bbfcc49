"""Who is waited for while an announced batch arrives: the host, which has others to listen to, or its own REPL.

The batch holds room that others wait for (`prompt_budget.py`). So a REPL waits for free only as long as it sends as
fast as any honest one can, or has sent what the host has not read yet. Otherwise the time is the code's own.
"""

from __future__ import annotations

import time

RATE = 2**25
"""Bytes that a REPL sends per second at least, on average."""
LOOK = 0.5
"""Seconds between looks, and for which a REPL may lag behind."""
_SOON = 0.05
"""Seconds until the next look at the soonest."""


class Arrival:
    """Keeps the account of one cell: seconds that pass while a batch arrives, and bytes that come."""

    def __init__(self) -> None:
        self._left = LOOK
        self._since = 0.0
        self._size = 0

    def begin(self) -> None:
        """A batch has its room, and may come."""
        self._since, self._size = time.monotonic(), 0

    def look(self, size: int, behind: bool = False) -> None:
        """`size`: bytes of the batch that have come. `behind`: the host has not read all that was sent, so that the
        time since the last look is its own."""
        now = time.monotonic()
        passed = 0.0 if behind else min(now - self._since, LOOK)  # a late look is the host's fault
        left = self._left - passed + (size - self._size) / RATE
        self._left = min(max(left, _SOON if behind else 0.0), LOOK)
        self._since, self._size = now, size

    @property
    def stalled(self) -> bool:
        """The host waits for the REPL."""
        return self._left <= 0

    @property
    def next_look(self) -> float:
        """Seconds until then."""
        return LOOK if self.stalled else max(self._left, _SOON)
