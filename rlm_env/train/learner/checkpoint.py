"""Checkpoints of a run: each is written completely or not at all, and only the newest are kept.

A checkpoint holds the hashes of its files. One that was damaged on disk is not loaded; the one before it is.
Not covered: the files that a learner writes into one (`learner.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import disk_errors

_NAME = re.compile(r"step-(\d{6,})")
_UNFINISHED = ".unfinished-"
_DAMAGED = "damaged-"
_CONTENTS = "contents.json"
HASHED_AT_ONCE = 4
"""Files that are hashed at the same time."""


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing, unreadable or not as it was written. The message names it."""


class Saved(Protocol):
    """An object whose whole state can be written to a folder and read back, such as a learner. Both raise OSError where
    the disk refuses."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


class Checkpoints:
    """The folder `checkpoints/` of a run: `step-000020/` holds what `learner.save` wrote, and `contents.json`, with the
    hashes of these files.

    Invariant: a folder with such a name is complete. It is written under another name, flushed to disk, then renamed.
    `keep`: the number of checkpoints to keep. Only one process may write at a time.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, learner: Saved, extra: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`, replacing an existing one. `extra`: further values to keep, as JSON. Raises
        RunStopped where it cannot be written; the checkpoint before is still there then."""
        path = self.folder / f"step-{step:06d}"
        json.dumps(extra)  # fails before anything is written
        with disk_errors(path, "writing a checkpoint"), atomic_folder(path) as unfinished:
            learner.save(unfinished)
            contents = {"extra": extra, "sha256": _hash_files(unfinished)}
            (unfinished / _CONTENTS).write_text(json.dumps(contents), "utf-8")
        with disk_errors(self.folder, "removing old checkpoints"):
            self.prune()
        return path

    def load(self, learner: Saved, path: Path) -> dict[str, Any]:
        """Restores the learner; returns the `extra` values that were saved with it. Raises DamagedCheckpoint."""
        extra = _checked(path)
        try:
            learner.load(path)
        except OSError as error:
            raise DamagedCheckpoint(f"{error.filename or path} cannot be read ({error.strerror})") from error
        return extra

    def restore(self, learner: Saved, say: Callable[[str], None]) -> Path | None:
        """Restores the learner from the newest checkpoint that is whole; returns that one, None if there is none.

        A damaged checkpoint is reported with `say` and renamed. Raises ConfigError where all are damaged, now or in an
        earlier call, and RunStopped where one cannot be renamed.
        """
        damage = []
        for path in reversed(self._complete()):
            try:
                self.load(learner, path)
            except DamagedCheckpoint as error:
                moved = _free_name(path)
                with disk_errors(path, f"it is damaged and was to be renamed to {moved.name}"):
                    path.rename(moved)
                damage.append(f"{error}; it is now {moved.name}")
                say(f"{damage[-1]}. Going on from the checkpoint before it.")
                continue
            return path
        if damage or any(name.startswith(_DAMAGED) for name in self._names()):
            raise ConfigError(
                f"no checkpoint is left to go on from{': ' if damage else ''}{'; '.join(damage)}. {self.folder} holds "
                f"damaged ones alone ({_DAMAGED}*): remove them, and --resume trains all steps again on the rollouts "
                "that are stored; or choose another --out"
            )
        return None

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        return next(reversed(self._complete()), None)

    def is_empty(self) -> bool:
        """True where no checkpoint was ever written; a damaged one counts."""
        return all(name.startswith(_UNFINISHED) for name in self._names())

    def prune(self) -> None:
        """Removes all but the newest `keep`, and unfinished folders of killed processes."""
        for path in self._complete()[: -self.keep]:
            # Renamed first: a checkpoint that is half removed must not be taken for a complete one.
            shutil.rmtree(path.rename(path.with_name(f"{_UNFINISHED}{path.name}")))
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)

    def _complete(self) -> list[Path]:
        """All checkpoints, oldest first."""
        steps = {int(match[1]): name for name in self._names() if (match := _NAME.fullmatch(name))}
        return [self.folder / steps[step] for step in sorted(steps)]

    def _names(self) -> list[str]:
        """What is in the folder. Raises ConfigError where it cannot be read, which must not pass for a new run."""
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"{self.folder}, where checkpoints are kept, cannot be read: {error.strerror}") from error


def _free_name(path: Path) -> Path:
    """Where a damaged checkpoint goes: one of the same step may be there already."""
    names = (f"{_DAMAGED}{path.name}{'' if number == 1 else f'-{number}'}" for number in itertools.count(1))
    return next(free for name in names if not os.path.lexists(free := path.with_name(name)))


def _checked(path: Path) -> dict[str, Any]:
    """The `extra` values of a checkpoint whose files are as its contents.json says; other files do not belong to it.
    Raises DamagedCheckpoint."""
    try:
        contents = json.loads((path / _CONTENTS).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path / _CONTENTS} is damaged ({error})") from error
    extra, expected = (contents.get(key) if isinstance(contents, dict) else None for key in ("extra", "sha256"))
    if not isinstance(extra, dict) or not isinstance(expected, dict) or not expected:
        raise DamagedCheckpoint(f"{path / _CONTENTS} is damaged (it lists no files)")
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        for problem in pool.map(lambda name: _problem(path / name, expected[name]), expected):
            if problem is not None:
                raise DamagedCheckpoint(problem)
    return extra


def _problem(path: Path, digest: Any) -> str | None:
    """What is wrong with a file of a checkpoint."""
    try:
        return None if _hash_file(path) == digest else f"{path} is not as it was written"
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return f"{path} cannot be read ({error})"


def _hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path within the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _CONTENTS)
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        digests = pool.map(_hash_file, files)
        return {path.relative_to(folder).as_posix(): digest for path, digest in zip(files, digests, strict=True)}


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Waits until a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
