"""Counts the threads, the memory and the temporary files of all REPLs of a pool, and ends the one that goes too far.

The kernel's limits do not do for this: the number of threads (RLIMIT_NPROC) is counted per user, and not at all for
root; the limit of address space is per REPL, and a thousand REPLs may want a thousand times as much. So the host looks,
some thirty times a second, from a thread of its own: also while the event loop is busy. A look costs little where
nothing has changed: the kernel's numbers of all threads and of available memory tell whether it is worth counting. They
hide threads that one REPL starts while another ends as many, so some are counted in each look, and all within ten.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rlm_env.repl.host.scratch_use import ScratchUser, ScratchWatch

INTERVAL = 0.03
"""Seconds between looks."""
_FEW_THREADS = 64
"""New threads on the machine from which on those of each REPL are counted. One that is no further from its bound is
counted in each look."""
_TURNS = 10
"""Looks in which the threads of every REPL are counted, whatever the machine's number."""
_COUNT_IN_ANY_CASE = 1.0
"""Seconds until memory is counted in any case."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watched(ScratchUser, Protocol):
    """A process, as the watchdog knows it."""

    def end_from_thread(self, reason: str) -> None:
        """Kills it, from any thread."""
        ...


@dataclass(slots=True)
class _Entry:
    process: Watched
    began_with: int
    """Bytes of its own memory when it was opened: what it shares with its parent."""
    threads: int = 1
    """At the last count."""


class Watchdog:
    """Watches processes between `add` and `discard`, once it was started."""

    def __init__(self, memory: int, max_threads: int, scratch: ScratchWatch | None = None) -> None:
        """`memory`: bytes that all of them together may add to what they began with. `max_threads`: of each.
        `scratch`: counts their temporary directories, if they have any."""
        self._memory = memory
        self._max_threads = max_threads
        self._scratch = scratch
        self._entries: dict[Watched, _Entry] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._loadavg, self._meminfo = _KernelFile("/proc/loadavg"), _KernelFile("/proc/meminfo")
        self._total_threads = _Counter(lambda: _all_threads(self._loadavg))
        self._turn = 0

    def start(self) -> None:
        """Starts the thread, unless it runs. RuntimeError where there is none to be had."""
        if self._thread is None and not self._closed.is_set():
            with contextlib.suppress(OSError):
                self._loadavg.open()
                self._meminfo.open()
            thread = threading.Thread(target=self._watch, name="repl-watchdog", daemon=True)
            thread.start()
            self._thread = thread

    def add(self, process: Watched) -> None:
        with self._lock:
            self._entries[process] = _Entry(process, private_memory(process.pid))

    def discard(self, process: Watched) -> None:
        with self._lock:
            self._entries.pop(process, None)

    def close(self) -> None:
        """Ends the thread, and closes its files."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._loadavg.close()
        self._meminfo.close()

    def _watch(self) -> None:
        free, counted = _free_memory(self._meminfo), time.monotonic()
        step = max(self._memory // 16, 2**26)
        while not self._closed.wait(INTERVAL):
            now, left = time.monotonic(), _free_memory(self._meminfo)
            in_any_case = now > counted + _COUNT_IN_ANY_CASE
            self.look_at_threads()
            if left < free - step or in_any_case:
                self.look_at_memory()
                free, counted = left, now
            free = max(free, left)
            if self._scratch is not None and self._scratch.is_due():
                self._scratch.look([entry.process for entry in self._all()], _end)

    def _all(self) -> list[_Entry]:
        with self._lock:
            return list(self._entries.values())

    def look_at_threads(self) -> None:
        """Ends every process that has too many threads. Counts those that may have come to that since the last look."""
        grown = self._total_threads.grown_by(_FEW_THREADS)
        near = self._max_threads - _FEW_THREADS
        self._turn = (self._turn + 1) % _TURNS
        for place, entry in enumerate(self._all()):
            if not grown and entry.threads < near and place % _TURNS != self._turn:
                continue
            count = entry.threads = thread_count(entry.process.pid)
            if count > self._max_threads:
                entry.process.end_from_thread(
                    f"had {count:,} threads at a time, more than the {self._max_threads} that a REPL may have, and was "
                    "ended"
                )

    def look_at_memory(self) -> None:
        """Ends the largest processes until the rest fits."""
        sizes = [(private_memory(entry.process.pid) - entry.began_with, entry) for entry in self._all()]
        total = sum(max(size, 0) for size, _ in sizes)
        for size, entry in sorted(sizes, key=lambda one: -one[0]):
            if total <= self._memory:
                return
            total -= size
            entry.process.end_from_thread(
                f"held {size >> 20:,} MiB, the most of all REPLs, when these had used up the "
                f"{self._memory >> 20:,} MiB that they may hold together, and was ended"
            )


def _end(process: Watched, reason: str) -> None:
    process.end_from_thread(reason)


class _Counter:
    """Tells when a number that goes up and down has grown enough for a closer look."""

    def __init__(self, read: Callable[[], int | None]) -> None:
        self._read = read
        self._lowest = 0

    def grown_by(self, least: int) -> bool:
        """True if it has grown by at least that much since the last True; also where it cannot be read."""
        now = self._read()
        if now is None or now >= self._lowest + least:
            self._lowest = now or 0
            return True
        self._lowest = min(self._lowest, now)
        return False


class _KernelFile:
    """A file of the kernel that is read in each look, by one descriptor that stays open: to open it takes longer than
    to read it, and this process would seem to have now one file open, now one more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def open(self) -> None:
        """Raises OSError where the kernel has no such file, or this process may have no more."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """How it begins. Raises OSError as `open` does."""
        self.open()
        return os.pread(self._descriptor, 256, 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _all_threads(loadavg: _KernelFile) -> int | None:
    """Threads of the whole machine; None where the kernel does not say."""
    try:
        return int(loadavg.read().split()[3].partition(b"/")[2]) or None
    except (OSError, ValueError, IndexError):
        return None


def thread_count(pid: int) -> int:
    """Threads of a process; 0 where it has ended."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def private_memory(pid: int) -> int:
    """Bytes of a process's resident memory that belong to no file; with what it shares with its parent since a fork."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            _, resident, shared = file.read(128).split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _free_memory(meminfo: _KernelFile) -> int:
    """Bytes of memory that can be had, those of the page cache among them; 0 where the kernel does not say."""
    try:
        return int(meminfo.read().partition(b"MemAvailable:")[2].split(None, 1)[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0


def machine_memory() -> int:
    """Bytes of memory that this machine has, or the container that this process runs in."""
    found = [os.sysconf("SC_PHYS_PAGES") * _PAGE]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            found.append(int(file.read()))
    return min(found)
