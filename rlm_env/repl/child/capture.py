"""Capturing what a cell prints, bounded while it is written.

`sys.stdout` and `sys.stderr` of a cell go into one stream, in order; kept are head and tail with the true length.
Descriptors 1 and 2 are captured too, for C code and (where the isolation level allows them) child processes. The host
bounds the output once more, since it does not trust this side (`host/repl.py`).
"""

from __future__ import annotations

import io
import os
import threading
from typing import Any

from rlm_env.repl.bounds import shorten

# Kept under names of our own: a cell may set `os.lseek = None`.
_lseek, _pread, _ftruncate, _END = os.lseek, os.pread, os.ftruncate, os.SEEK_END


class Recorder:
    """Keeps head and tail of what is written to it. Any thread may write."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._head: str | None = None
        self._parts: list[str] = []
        self._kept = 0
        self._total = 0

    def write(self, text: str) -> None:
        """Adds text, of which head and tail are kept."""
        with self._lock:
            self._total += len(text)
            if len(text) > 4 * self.limit:
                if self._head is None:
                    self._head = ("".join(self._parts) + text[: self.limit])[: self.limit]
                text = text[-self.limit :]
                self._parts, self._kept = [], 0
            self._parts.append(text)
            self._kept += len(text)
            if self._kept > 4 * self.limit:
                joined = "".join(self._parts)
                if self._head is None:
                    self._head = joined[: self.limit]
                self._parts = [joined[-self.limit :]]
                self._kept = self.limit

    def take(self) -> tuple[str, int]:
        """Returns (the bounded text, the number of characters written), and starts again from nothing."""
        with self._lock:
            rest, total = "".join(self._parts), self._total
            head = rest if self._head is None else self._head
            self._reset()
        return shorten(head, self.limit, total, rest), total


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes, recorded as text."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def writable(self) -> bool:
        return True

    def write(self, buffer: Any, /) -> int:
        data = bytes(buffer)
        self._recorder.write(data.decode("utf-8", "replace"))
        return len(data)

    def close(self) -> None:
        """A cell cannot close what it does not own."""


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of the cells."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, recorder: Recorder, descriptor: int) -> None:
        self._recorder = recorder
        self._descriptor = descriptor
        self.buffer = _Bytes(recorder)

    def write(self, text: str) -> int:
        if type(text) is not str:
            if not isinstance(text, str):
                raise TypeError(f"write() argument must be str, not {type(text).__name__}")
            text = str.__str__(text)
        self._recorder.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def reconfigure(self, **_settings: Any) -> None:
        """Takes what `io.TextIOWrapper` takes: the text is kept as it is written, whatever the encoding."""

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """A cell cannot close what it does not own."""


class NoInput(io.TextIOBase):
    """`sys.stdin`: reading it raises, since nobody is there to answer."""

    encoding = "utf-8"

    def readable(self) -> bool:
        return True

    def read(self, _size: int | None = -1, /) -> str:
        """Raises EOFError with the message that a cell gets for `input()`."""
        raise EOFError("input() cannot be used here: nobody is there to answer")

    def readline(self, _size: int = -1, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (typeshed's bases differ)
        return self.read()

    def readlines(self, _hint: int = -1, /) -> list[str]:
        return [self.read()]

    def __next__(self) -> str:
        return self.read()

    def reconfigure(self, **_settings: Any) -> None:
        """Takes what `io.TextIOWrapper` takes."""

    def close(self) -> None:
        """A cell cannot close what it does not own."""


class Descriptors:
    """Descriptors 1 and 2 as one memory file, for what is written past Python's streams."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fd = os.memfd_create("output") if hasattr(os, "memfd_create") else -1
        if self._fd >= 0:
            for descriptor in (1, 2):
                os.dup2(self._fd, descriptor, inheritable=True)

    def drain(self, recorder: Recorder) -> None:
        """Moves what was written since the last call into `recorder`, head and tail of it."""
        try:
            size = _lseek(self._fd, 0, _END)
            if not size:
                return
            head = _pread(self._fd, 4 * self._limit, 0)
            rest = _pread(self._fd, 4 * self._limit, max(size - 4 * self._limit, len(head)))
            _ftruncate(self._fd, 0)
            _lseek(self._fd, 0, 0)
        except OSError:
            return  # the cell closed or resized it: what went there is gone
        recorder.write(head.decode("utf-8", "replace"))
        if (skipped := size - len(head) - len(rest)) > 0:
            recorder.write(f"\n... [{skipped:,} bytes omitted] ...\n")
        recorder.write(rest.decode("utf-8", "replace"))
