"""How long a process has waited for a core: time in which the machine was busy with others.

The kernel counts it for each thread. What counts here is the longest wait of any one thread, whichever it is: the main
thread often only waits for others, for a pool of threads or for the interpreter's lock. It is not the sum, in which
threads that wait at the same time count the same second more than once: with many of them a cell that sleeps would
seem to wait for the machine.
"""

from __future__ import annotations

import math
import os

_OTHERS = 7
"""Threads that are read besides the main thread: the newest, since those of a pool have much the same to tell."""


class CoreQueue:
    """Of one process. A look at it takes 30 µs, and 10 µs for each further thread."""

    def __init__(self, directory: str) -> None:
        """`directory`: the process's own in `/proc`."""
        self._tasks = f"{directory}/task"
        self._seen: dict[str, float] = {}

    def since_last_look(self) -> float:
        """Seconds for which some thread of it was ready to run and had no core, at most as many as one thread alone;
        0 where the kernel does not say. At the first look: since the process began."""
        try:
            names = os.listdir(self._tasks)
        except OSError:
            return 0.0
        if len(names) > 1 + _OTHERS:
            names.sort(key=int)
        read = {*names[:1], *names[-_OTHERS:]}
        # A thread that was there and was not read has waited for nobody knows how long.
        now = {name: self._waited(name) if name in read else math.inf for name in names}
        longest = max((waited - self._seen.get(name, 0.0) for name, waited in now.items() if name in read), default=0.0)
        self._seen = now
        return max(longest, 0.0)

    def _waited(self, name: str) -> float:
        """Of a thread, since it began."""
        try:
            with open(f"{self._tasks}/{name}/schedstat", "rb", buffering=0) as stat:
                return int(stat.read(64).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0
