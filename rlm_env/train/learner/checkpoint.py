"""Checkpoints of a run: each is written completely or not at all, and only the newest are kept.

Not covered: the files that a learner writes into one (`learner.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

_NAME = re.compile(r"step-(\d{6,})")
_UNFINISHED = ".unfinished-"
_EXTRA = "extra.json"


class Saved(Protocol):
    """An object whose whole state can be written to a folder and read back, such as a learner."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


class Checkpoints:
    """The folder `checkpoints/` of a run: `step-000020/` holds what `learner.save` wrote, and `extra.json`.

    Invariant: a folder with such a name is complete. It is written under another name, flushed to disk, then renamed.
    `keep`: the number of checkpoints to keep. Only one process may write at a time.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, learner: Saved, extra: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`, replacing an existing one. `extra`: further values to keep, as JSON."""
        path = self.folder / f"step-{step:06d}"
        text = json.dumps(extra)  # fails before anything is written
        with atomic_folder(path) as unfinished:
            learner.save(unfinished)
            (unfinished / _EXTRA).write_text(text, "utf-8")
        self.prune()
        return path

    def load(self, learner: Saved, path: Path) -> dict[str, Any]:
        """Restores the learner; returns the `extra` values that were saved with it."""
        learner.load(path)
        return json.loads((path / _EXTRA).read_text("utf-8"))

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        return next(reversed(self._complete()), None)

    def prune(self) -> None:
        """Removes all but the newest `keep`, and unfinished folders of killed processes."""
        for path in self._complete()[: -self.keep]:
            # Renamed first: a checkpoint that is half removed must not be taken for a complete one.
            shutil.rmtree(path.rename(path.with_name(f"{_UNFINISHED}{path.name}")))
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)

    def _complete(self) -> list[Path]:
        """All checkpoints, oldest first."""
        found = {}
        for path in self.folder.glob("step-*"):
            if match := _NAME.fullmatch(path.name):
                found[int(match[1])] = path
        return [found[step] for step in sorted(found)]


@contextmanager
def atomic_folder(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yields an empty folder, which is renamed to `path` at the end and replaces what was there. On an error, `path`
    is unchanged.

    `durable`: flush to disk before renaming, so that the folder is complete even after a power failure. Otherwise it
    is safe against the death of the process only.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if durable:
            for found in [*unfinished.rglob("*"), unfinished]:
                _flush(found)
        if path.exists():
            old = path.with_name(f"{_UNFINISHED}{path.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            unfinished.rename(path)
            shutil.rmtree(old)
        else:
            unfinished.rename(path)
        if durable:
            _flush(path.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
