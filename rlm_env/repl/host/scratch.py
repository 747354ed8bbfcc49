"""The temporary directories of a pool's REPLs on the host (`ReplConfig.tmp_mb`): their names, and their end.

All are in one folder of the pool, in the host's own temporary directory; at level jail nothing of them is on the host.
Each REPL makes its own, `<pool>/<REPL>/tmp`; its forks, which are in the same sandbox, have others beside it. A pool's
folder is locked while its host lives: one that was left behind is removed by the next pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rlm_env.repl.host.resources import is_want_of_threads

_PREFIX = "rlm-env-tmp-"
_OLD = 60.0
"""Seconds after which a folder without a lock is nobody's."""
_IN_JAIL = "/scratch/repl"
_FIRST = "tmp"
_P = ParamSpec("_P")
_T = TypeVar("_T")


class ScratchDirectory:
    """The temporary directory of one process."""

    def __init__(self, base: str | None, family: set[str], repl: str, name: str = _FIRST) -> None:
        """`base`: None where nothing is on the host. `family`: the names of the process and its living forks. `repl`:
        the name that they have in common."""
        self.repl = repl
        self.name = name
        self._base = base
        self._family = family
        family.add(name)

    @property
    def common(self) -> str | None:
        """The folder of the process and its forks; None where nothing is on the host."""
        return None if self._base is None else f"{self._base}/{self.repl}"

    @property
    def others(self) -> set[str]:
        """The names of the forks."""
        return self._family - {self.name}

    def fork(self) -> ScratchDirectory:
        """One for a fork of the process."""
        return ScratchDirectory(self._base, self._family, self.repl, f"tmp-{secrets.token_hex(4)}")

    def remove(self) -> None:
        """The process has ended."""
        self._family.discard(self.name)
        if self.common is not None:
            remove_tree(f"{self.common}/{self.name}" if self._family else self.common)


class ScratchBase:
    """The folder of a pool. `path`: None at level jail."""

    def __init__(self, level: str) -> None:
        """Makes it, and removes those that others have left behind. OSError where it cannot be made."""
        self.path: str | None = None
        self._workers: ThreadPoolExecutor | None = ThreadPoolExecutor(2, "repl-scratch")
        self._lock = -1
        if level == "jail":
            return
        _remove_old()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.geteuid() == 0:
            os.chmod(self.path, 0o1733)  # REPLs with user ids of their own make their directories here

    def spec(self, size: int, reading: list[str]) -> dict[str, Any]:
        """A zygote's instructions (`sandbox/scratch.py`)."""
        mounted = self.path is None
        return {"base": self.path or _IN_JAIL, "mounted": mounted, "size": size, "reading": reading}

    def directory(self) -> ScratchDirectory:
        """One for a new REPL."""
        return ScratchDirectory(self.path, set(), secrets.token_hex(8))

    async def in_thread(self, work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T | None:
        """Counts or removes files without waiting for anybody else's threads; where the system gives none, in this one.
        None after `close`."""
        if self._workers is None:
            return None
        call = functools.partial(work, *arguments, **named)
        try:
            working = asyncio.get_running_loop().run_in_executor(self._workers, call)
        except RuntimeError as error:
            if not is_want_of_threads(error):
                raise
            return call()
        return await working

    def close(self) -> None:
        """Removes all that is left."""
        if self._workers is not None:
            self._workers.shutdown()
            self._workers = None
        if self.path is not None:
            remove_tree(self.path)
            os.close(self._lock)
            self.path = None


def jail_arguments() -> tuple[list[str], list[str]]:
    """What bubblewrap needs so that a REPL can mount a directory of its own: before, and after its other words."""
    parent = os.path.dirname(_IN_JAIL)
    first = ["--cap-add", "CAP_SYS_ADMIN", "--size", "65536", "--tmpfs", parent, "--dir", _IN_JAIL]
    return first, ["--remount-ro", parent]


def sees_open_files() -> bool:
    """Whether this process may see which files a process of another user has open."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status", encoding="ascii") as status:
        granted = next(line for line in status if line.startswith("CapEff:"))
        return bool(int(granted.split()[1], 16) >> 19 & 1)  # CAP_SYS_PTRACE
    return False


def remove_tree(path: str) -> None:
    """Removes a folder with all that is in it, however deep and whatever its modes. Nothing happens where it is not
    there; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _empty(top)
        finally:
            os.close(top)
    shutil.rmtree(path, ignore_errors=True)


def _empty(top: int) -> None:
    """Brings every folder below to the top, so that no path gets long, and empties it there."""
    folders = [name for name in os.listdir(top) if _is_folder(name, top)]
    number = 0
    while folders:
        name = folders.pop()
        with contextlib.suppress(OSError):
            os.chmod(name, 0o700, dir_fd=top)
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                for child in os.listdir(folder):
                    if not _is_folder(child, folder):
                        os.unlink(child, dir_fd=folder)
                        continue
                    os.chmod(child, 0o700, dir_fd=folder)  # moving it takes the right to write to it
                    number += 1
                    moved = f".{number}-{secrets.token_hex(4)}"
                    os.rename(child, moved, src_dir_fd=folder, dst_dir_fd=top)
                    folders.append(moved)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)


def _is_folder(name: str, folder: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _remove_old() -> None:
    """Removes the folders of this user's hosts that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(lock)
                if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _OLD:
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(str(path))
            finally:
                os.close(lock)
