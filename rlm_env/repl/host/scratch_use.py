"""What a REPL's temporary directory costs the host: bytes and names, counted from outside while its code may run.

Files can also be held without a name: open ones that were removed, and mapped ones whose descriptor was closed. So
names are counted first, then descriptors, then mappings: a file can only move on in this order, because a REPL can
neither link nor rename.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from rlm_env.repl.host.scratch import ScratchDirectory
from rlm_env.repl.sandbox.scratch import MAX_SCRATCH_NAMES

_MAX_DEPTH = 32
_IN_ANY_CASE = 1.0
"""Seconds."""
_SHARE = 16
"""A process is counted again when the free space of the file system has shrunk by this part of what it may have."""
_REST = 5
"""After a count, at least so many times as long passes before the next one."""
_NAMES = 64
_BLOCK = 512


class ScratchUser(Protocol):
    """A process with a temporary directory, as this module knows it."""

    @property
    def pid(self) -> int: ...

    @property
    def scratch(self) -> ScratchDirectory | None: ...

    def cpu_seconds(self) -> float: ...


_User = TypeVar("_User", bound=ScratchUser)


class _OverBound(Exception):
    """Says what was too much."""


class ScratchWatch:
    """Counts for a watchdog, where something may have changed."""

    def __init__(self, base: str, size: int, file_size: int) -> None:
        """`size`: bytes that each process may hold; `file_size`: the most that one file can have."""
        self._base = base
        self._size = size
        self._file_size = file_size
        self._space, self._names = _free(base)
        self._looked = 0.0
        self._took = 0.0
        self._computed: dict[int, float] = {}
        """Process id -> CPU seconds at the last count: without code that runs, nothing changes."""

    def is_due(self) -> bool:
        """Something was written to the file system, or it is long ago."""
        space, names = _free(self._base)
        now = time.monotonic()
        if now < self._looked + self._took * _REST:
            return False
        due = space < self._space - self._size // _SHARE or names < self._names - _NAMES
        if due or now > self._looked + _IN_ANY_CASE:
            self._space, self._names = space, names
            return True
        self._space, self._names = max(space, self._space), max(names, self._names)
        return False

    def look(self, users: list[_User], end: Callable[[_User, str], None]) -> None:
        """Counts, and calls `end` with the reason for each process that holds too much."""
        begin = time.monotonic()
        before, self._computed = self._computed, {}
        for user in users:
            computed = self._computed[user.pid] = user.cpu_seconds()
            if computed != before.get(user.pid):
                reason = self.excess(user)
                if reason is not None:
                    end(user, reason)
        self._looked = time.monotonic()
        self._took = self._looked - begin

    def excess(self, user: ScratchUser) -> str | None:
        """What a process holds too much of, in words; None where it does not."""
        scratch = user.scratch
        if scratch is None or scratch.common is None:
            return None
        try:
            _Count(self._size, self._file_size).all(scratch.common, scratch.others, user.pid)
        except _OverBound as over:
            return f"{over}, and was ended"
        except FileNotFoundError:  # not made yet, or the process has ended
            return None
        except OSError as error:
            return f"had a temporary directory that the host cannot look into ({error.strerror}), and was ended"
        return None


class _Count:
    """One count. Stops with _OverBound as soon as it is too much."""

    def __init__(self, size: int, file_size: int) -> None:
        self._limit = size
        self._file_size = file_size
        self._bytes = self._names = 0
        self._seen: set[int] = set()
        """Inodes."""

    def all(self, path: str, others: set[str], pid: int) -> None:
        """Everything below `path` but the folders `others`, and what the process holds of it without a name."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._folder(folder, others, 0)
        finally:
            os.close(folder)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self._descriptors(pid, path)
            self._mappings(pid, path)

    def _folder(self, folder: int, others: set[str], depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise _OverBound(f"nested folders more than {_MAX_DEPTH} deep in its temporary directory")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in others:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    self._add(found)
                    if stat.S_ISDIR(found.st_mode):
                        self._open_folder(folder, entry.name, depth + 1)

    def _open_folder(self, parent: int, name: str, depth: int) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            folder = os.open(name, flags, dir_fd=parent)
        except PermissionError:  # of a mode that closes it to its owner, who is the host's own user
            os.chmod(name, 0o700, dir_fd=parent)
            folder = os.open(name, flags, dir_fd=parent)
        try:
            self._folder(folder, set(), depth)
        finally:
            os.close(folder)

    def _descriptors(self, pid: int, path: str) -> None:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    to = os.readlink(entry.path)
                    if to.startswith(f"{path}/") and to.endswith(" (deleted)"):
                        self._add(entry.stat())

    def _mappings(self, pid: int, path: str) -> None:
        prefix = f" {path}/".encode()
        with open(f"/proc/{pid}/maps", "rb") as maps:
            for line in maps:
                if prefix not in line or not line.endswith(b" (deleted)\n"):
                    continue
                span, _, _, _, inode = line.split(maxsplit=5)[:5]
                if int(inode) in self._seen:
                    continue
                try:
                    self._add(os.stat(f"/proc/{pid}/map_files/{span.decode()}"))
                except FileNotFoundError:
                    continue
                except OSError:  # only root may ask
                    self._seen.add(int(inode))
                    self._count(self._file_size)

    def _add(self, found: os.stat_result) -> None:
        if found.st_ino not in self._seen:
            self._seen.add(found.st_ino)
            self._count(found.st_blocks * _BLOCK)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._names += 1
        if self._bytes > self._limit:
            raise _OverBound(f"held more than {self._limit >> 20:,} MiB in its temporary directory")
        if self._names > MAX_SCRATCH_NAMES:
            raise _OverBound(f"had more than {MAX_SCRATCH_NAMES:,} files and folders in its temporary directory")


def _free(path: str) -> tuple[int, int]:
    """Bytes and names that the file system of `path` has left."""
    try:
        found = os.statvfs(path)
    except OSError:
        return 0, 0
    return found.f_bfree * found.f_frsize, found.f_ffree
