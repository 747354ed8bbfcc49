"""The temporary directory of a REPL as the model's code sees it: `tempfile`, TMPDIR and HOME lead to it.

Moving files and changing their modes and times is denied by the sandbox; Python's ways to do it are made to work for
files, by a copy, and to leave modes and times alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

# Kept under names of our own: a cell may set `os.mkdir = None`.
_mkdir, _environ, _remove_folder = os.mkdir, os.environ, shutil.rmtree


class Scratch:
    """The directory of this process, and those of its forks beside it."""

    def __init__(self, common: str, name: str) -> None:
        """`common`: the folder that only this REPL and its forks may look into."""
        self._common = common
        self.take(name)

    def take(self, name: str) -> None:
        """From now on this one, which is empty."""
        self._path = f"{self._common}/{name}"
        tempfile.tempdir = self._path
        for variable in ("TMPDIR", "HOME"):
            _environ[variable] = self._path

    def begin_cell(self) -> None:
        """Makes the directory where it is not there: a checkpoint never runs a cell, a cell may remove it."""
        try:
            _mkdir(self._path, 0o700)
        except OSError:
            return

    def forget(self, name: str) -> None:
        """Frees the room of a fork that has ended."""
        _remove_folder(f"{self._common}/{name}", True)


def move_by_copying() -> None:
    """Puts what works in a temporary directory in the place of what the sandbox denies, in this process."""
    setattr(os, "rename", _move)  # noqa: B010 (type checkers know its exact signature)
    setattr(os, "replace", _move)  # noqa: B010 (as above)
    setattr(shutil, "copymode", _leave)  # noqa: B010 (as above)
    setattr(shutil, "copystat", _leave)  # noqa: B010 (as above)


def _move(src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    """`os.replace` for a file."""
    if src_dir_fd is not None or dst_dir_fd is not None:
        raise NotImplementedError("a REPL cannot move files relative to directory descriptors")
    with open(src, "rb") as old:
        if os.path.exists(dst) and os.path.samefile(src, dst):
            return
        with open(dst, "wb") as new:
            shutil.copyfileobj(old, new)
    os.unlink(src)


def _leave(*_arguments: Any, **_keywords: Any) -> None:
    """Modes and times stay as they are."""
