"""Checkpoints of a run: written whole or not at all, the last few kept.

Covered: folders that appear at once, which checkpoint is the newest, what else the run wants to keep with it, removal
of old ones and of what a killed process left. Not covered: what a learner writes (`learner.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAME = re.compile(r"step-(\d{6,})")
_UNFINISHED = ".unfinished-"
_EXTRA = "extra.json"


class Checkpoints:
    """The folder `checkpoints/` of a run: `step-000020/` holds what `learner.save` wrote, and `extra.json`.

    Invariant: a folder named like this is complete. It is made under another name, flushed to disk, then renamed.
    `keep`: how many stay, the newest. One process writes at a time.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, learner: Any, extra: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`, replacing one that is there; `extra` must be JSON."""
        path = self.folder / f"step-{step:06d}"
        text = json.dumps(extra)  # fails before anything is written
        with atomic_folder(path) as unfinished:
            learner.save(unfinished)
            (unfinished / _EXTRA).write_text(text, "utf-8")
        self.prune()
        return path

    def load(self, learner: Any, path: Path) -> dict[str, Any]:
        """Puts the learner where it was; returns what was given as `extra`."""
        learner.load(path)
        return json.loads((path / _EXTRA).read_text("utf-8"))

    def latest(self) -> Path | None:
        """The newest checkpoint; None before the first."""
        return next(reversed(self._complete()), None)

    def prune(self) -> None:
        """Removes all but the newest `keep`, and what killed processes left unfinished."""
        for path in self._complete()[: -self.keep]:
            # Under another name first: half removed, it must not be taken for a checkpoint.
            shutil.rmtree(path.rename(path.with_name(f"{_UNFINISHED}{path.name}")))
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)

    def _complete(self) -> list[Path]:
        """By step, oldest first."""
        found = {}
        for path in self.folder.glob("step-*"):
            if match := _NAME.fullmatch(path.name):
                found[int(match[1])] = path
        return [found[step] for step in sorted(found)]


@contextmanager
def atomic_folder(path: Path, durable: bool = True) -> Iterator[Path]:
    """An empty folder to write to, which becomes `path` at the end, in place of one that is there; on an error
    nothing has changed.

    `durable`: whether it is flushed to disk first, so that it is whole even after a power failure. Without, it
    survives the death of the process, but not that of the machine.
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
