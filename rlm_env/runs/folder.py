"""The output folder of a run: rollouts.jsonl, config.toml, summary.json, and results.jsonl, which is made of the first.

Invariants: rollouts.jsonl only ever grows by whole lines, each flushed when it is written; what a crash or a full
disk cut off is removed before the next line. summary.json and config.toml are replaced as wholes. One process
writes at a time. A rollout that is stored twice (an error that was repeated) counts as its last line says.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli_w

from rlm_env.rollout import Rollout, read_rollouts
from rlm_env.runs.errors import ConfigError, RunStopped

ROLLOUTS, CONFIG, SUMMARY, RESULTS = "rollouts.jsonl", "config.toml", "summary.json", "results.jsonl"
FSYNC_SECONDS = 1.0
"""A power cut can cost the rollouts of this long; a crash of ours costs none."""


class RunFolder:
    """The folder of one run, open for writing. Use it as a context manager."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises ConfigError where the folder holds a run and `resume` is off, or the other way round."""
        self.path = path
        stored = path / ROLLOUTS
        has_rollouts = stored.exists() and stored.stat().st_size > 0  # a run that stored nothing may be begun anew
        if has_rollouts and not resume:
            raise ConfigError(
                f"{path} already holds a run; add --resume to go on with it, or choose another --out folder"
            )
        if resume and not (path / CONFIG).exists():
            raise ConfigError(f"there is nothing to resume in {path}; leave out --resume to start the run")
        self._file: int | None = None
        self._end = 0
        self._synced = 0.0

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ConfigError(f"{self.path} cannot be used as an output folder: {error.strerror}") from error
        with _disk_errors(self.path, "opening it"):
            self._file = os.open(self.path / ROLLOUTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                raise ConfigError(f"another eval is writing into {self.path}; wait for it or stop it") from None
            self._end = _whole_lines(self._file)
            os.ftruncate(self._file, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk has been reported by then
                os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def append(self, rollout: Rollout) -> None:
        """Adds one rollout. Raises RunStopped when the disk refuses; the file then ends with the line before."""
        data = (rollout.to_json() + "\n").encode("ascii")
        written = 0
        with _disk_errors(self.path, "writing a rollout; the run can be resumed, and repeats that one"):
            try:
                while written < len(data):
                    written += os.pwrite(self._file, memoryview(data)[written:], self._end + written)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
            self._end += len(data)
            if time.monotonic() - self._synced >= FSYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def sync(self) -> None:
        """What was appended so far is on the disk, not only in its cache, when this returns."""
        with _disk_errors(self.path, "syncing rollouts"):
            os.fsync(self._file)

    def rollouts(self) -> Iterator[Rollout]:
        """The rollouts stored so far, in the order of the file."""
        return read_rollouts(self.path / ROLLOUTS)

    def write_config(self, config: dict[str, Any]) -> None:
        write_config(self.path, config)

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_summary(self.path, summary)

    def write_results(self, results: Iterable[dict[str, Any]]) -> None:
        """One flat record per rollout, without its tokens and texts: what a data frame is made of."""
        with _disk_errors(self.path, f"writing {RESULTS}"):
            _replace(self.path / RESULTS, "".join(json.dumps(result, allow_nan=False) + "\n" for result in results))


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Replaces the config.toml of a folder. Raises RunStopped when the disk refuses."""
    with _disk_errors(folder, f"writing {CONFIG}"):
        _replace(folder / CONFIG, tomli_w.dumps(plain(config)))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Replaces the summary.json of a folder. Raises RunStopped when the disk refuses."""
    with _disk_errors(folder, f"writing {SUMMARY}"):
        _replace(folder / SUMMARY, json.dumps(summary, indent=1, allow_nan=False) + "\n")


@contextlib.contextmanager
def _disk_errors(folder: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else str(error.strerror)
        raise RunStopped("disk full" if full else "disk error", f"{folder}: {reason} ({doing})", 1) from error


def read_config(path: Path) -> dict[str, Any]:
    """The config.toml of a run's folder. Raises ConfigError where there is none."""
    try:
        return tomllib.loads((path / CONFIG).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} holds no run: cannot read {CONFIG} ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path / CONFIG} is damaged: {error}") from error


def read_summary(path: Path) -> dict[str, Any]:
    """The summary.json of a run's folder; {} where it was not written yet. Raises ConfigError where it is damaged."""
    try:
        return json.loads((path / SUMMARY).read_text("utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path / SUMMARY} is damaged: {error}") from error


def _whole_lines(file: int) -> int:
    """Length in bytes of the part of the file that ends with its last line break."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - 65_536)
        if (at := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + at + 1
        end = start
    return 0


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def plain(value: Any) -> Any:
    """TOML has no null and only text keys: None is left out, tuples are lists, paths are text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value if item is not None]
    return value if isinstance(value, str | int | float | bool) else str(value)
