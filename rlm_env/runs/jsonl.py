"""JSON Lines files that only grow: rollouts, held-out rollouts, the journal, metrics, a judge's cache.

Invariants: a file grows by whole lines only, and a line is in the file when `append` returns. What a crash or a full
disk left of a last line is cut off before the next line is written, and readers leave it out. One process writes at a
time. A damaged line anywhere else is an error that names the file and the line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rlm_env.lines import parse_record, read_lines
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import disk_errors, replace_file

T = TypeVar("T")

NEVER = math.inf
"""As `fsync_seconds`: only `sync` and `close` call fsync."""
BLOCK = 65_536
COMMAND_CHARS = 100
"""Characters of a command line that the message about another writer shows."""


class JsonLog:
    """A JSON Lines file that is open for appending. Making one opens the file; it is also a context manager.

    A crash of this process costs no line. A power cut costs at most the lines of the last `fsync_seconds` (0: none).
    The file is locked until it is closed. With `shared` it is locked only while a line is written, so that several
    runs can add to one file.
    """

    def __init__(self, path: Path, *, fsync_seconds: float = 1.0, shared: bool = False) -> None:
        """Creates the file where there is none. Raises ConfigError if another process is writing to it, and
        RunStopped if the disk refuses."""
        self.path = path
        self._fsync_seconds = fsync_seconds
        self._shared = shared
        self._synced = time.monotonic()
        with disk_errors(path, "opening it"):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not shared:
                self._take_lock()
            with self._turn(), disk_errors(path, "opening it"):
                self._end = _cut_torn_line(self._file)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record as one line. Raises RunStopped if the disk refuses; the file then ends with the line before.

        Raises ValueError on a number that is not finite, since JSON has none.
        """
        self.append_line(json.dumps(record, separators=(",", ":"), allow_nan=False))

    def append_line(self, line: str) -> None:
        """Adds a line that is JSON already. It must not contain a line break."""
        data = memoryview((line + "\n").encode("utf-8"))
        with self._turn(), disk_errors(self.path, "adding a line; the file ends with the line before"):
            if self._shared:  # others may have added lines, or died while they did
                self._end = _cut_torn_line(self._file)
            written = 0
            try:
                while written < len(data):
                    written += os.pwrite(self._file, data[written:], self._end + written)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
            self._end += written
        if time.monotonic() - self._synced >= self._fsync_seconds:
            self.sync()

    def sync(self) -> None:
        """Returns when all lines are on the disk and not only in its cache."""
        with disk_errors(self.path, "syncing it"):
            os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Closes the file and gives up the lock; harmless when done twice."""
        if self._file < 0:
            return
        with contextlib.suppress(OSError):  # a full disk has been reported by then
            os.fsync(self._file)
        os.close(self._file)
        self._file = -1

    def _take_lock(self) -> None:
        """Locks the file; ConfigError that names the process that holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{_holder(self._file)} is writing to {self.path}; wait for it or stop it") from None

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits for the writers of other processes if the file is shared."""
        if not self._shared:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def read_jsonl(path: Path, parse: Callable[[str], T] = parse_record, *, torn: bool = True) -> Iterator[T]:
    """The lines of a JSON Lines file, in order, each through `parse`; nothing if there is no file. `torn`: whether the
    last line may be cut off; see `read_lines`.

    Raises ConfigError that names the file and the line if `parse` fails as with damage.
    """
    return read_lines(path, parse, ConfigError, torn=torn) if path.exists() else iter(())


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a JSON Lines file as a whole. Raises RunStopped if the disk refuses."""
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with disk_errors(path, "writing it"):
        replace_file(path, text)


def _cut_torn_line(file: int) -> int:
    """Cuts off what follows the last line break; returns the length of the file in bytes."""
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - BLOCK)
        if (at := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


def is_written(path: Path) -> bool:
    """True while a process has the file open for appending. The file is not touched. False where the kernel does not
    list locks."""
    try:
        return _lock_holder(path.stat().st_ino) is not None
    except OSError:
        return False


def _holder(file: int) -> str:
    """The process that holds the lock of an open file, with its command line where the kernel shows it."""
    with contextlib.suppress(OSError):
        if (pid := _lock_holder(os.fstat(file).st_ino)) is not None:
            command = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
            return f"process {pid} ({' '.join(command.split())[:COMMAND_CHARS]})"
    return "another process"


def _lock_holder(inode: int) -> int | None:
    """The process that has locked the file with this inode. Raises OSError where the kernel does not tell."""
    for lock in Path("/proc/locks").read_text("ascii").splitlines():
        fields = lock.split()  # 1: FLOCK ADVISORY WRITE <pid> <device>:<inode> <start> <end>
        if "FLOCK" in fields and fields[-3].endswith(f":{inode}") and int(fields[-4]) > 0:
            return int(fields[-4])
    return None
