"""The output folder of a run: rollouts.jsonl and the contexts it refers to, config.toml, summary.json, results.jsonl.

Invariants: rollouts.jsonl is a `JsonLog`, and its lock is that of the folder: one process writes at a time. The other
files are replaced as a whole. Of a rollout that is stored twice (an error that was repeated) the last line counts.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli_w

from rlm_env.contexts import CONTEXTS, ContextStore
from rlm_env.lines import parse_record, read_lines
from rlm_env.rollout import RecordError, Rollout, read_rollouts
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import disk_errors, replace_file
from rlm_env.runs.jsonl import NEVER, JsonLog, is_written, write_jsonl
from rlm_env.scoring.errors import failed
from rlm_env.toml_file import read_toml

PLACE = ("repeat",)
"""Keys of `Rollout.info` that say which rollout of a run it is."""
_ID = re.compile(r'\{"schema":\d+,"id":"([^"\\]*)"')
"""How a stored rollout begins; a line that does not is read as a whole."""
ROLLOUTS, CONFIG, SUMMARY, RESULTS = "rollouts.jsonl", "config.toml", "summary.json", "results.jsonl"


class RunFolder:
    """The folder of one run, open for writing and locked. Making one opens it; it is also a context manager."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises ConfigError where the folder holds a run and `resume` is off, where it holds none and `resume` is
        on, and where another process is writing to it."""
        self.path = path
        stored = path / ROLLOUTS
        has_rollouts = stored.exists() and stored.stat().st_size > 0  # a run that stored nothing may be begun anew
        if has_rollouts and not resume:
            raise ConfigError(
                f"{path} already holds a run; add --resume (in Python resume=True) to go on with it, or choose another "
                "--out folder (out)"
            )
        if resume and not (path / CONFIG).exists():
            raise ConfigError(
                f"there is nothing to resume in {path}; leave out --resume (resume=True) to start the run"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path} cannot be used as an output folder: {error.strerror}") from error
        self._log = JsonLog(stored)
        self._contexts = ContextStore(path / CONTEXTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def append(self, rollout: Rollout) -> Rollout:
        """Adds one rollout and returns what was stored (see `stored_line`). Raises RunStopped when the disk refuses;
        the file then ends with the line before."""
        rollout, line = stored_line(rollout, self._contexts)
        self._log.append_line(line)
        return rollout

    def sync(self) -> None:
        """Returns when all rollouts are on the disk and not only in its cache."""
        self._log.sync()

    def rollouts(self, ids: Container[str] | None = None) -> Iterator[Rollout]:
        """The rollouts stored so far, in the order of the file. With `ids`, those alone: of a line with another id
        nothing else is read, which takes a hundredth of the time."""
        if ids is None:
            return read_rollouts(self.path / ROLLOUTS)

        def read(line: str) -> Rollout | None:
            begin = _ID.match(line)
            return None if begin and begin[1] not in ids else Rollout.from_json(line, self._contexts)

        found = read_lines(self.path / ROLLOUTS, read, RecordError)
        return (rollout for rollout in found if rollout is not None and rollout.id in ids)

    def replace_rollouts(self, rollouts: Iterable[Rollout]) -> None:
        """Replaces rollouts.jsonl as a whole; after a crash it holds either the old rollouts or the new ones.

        Raises RunStopped when the disk refuses.
        """
        temporary = self.path / (ROLLOUTS + ".tmp")
        temporary.unlink(missing_ok=True)
        new = JsonLog(temporary, fsync_seconds=NEVER)
        try:
            for rollout in rollouts:
                new.append_line(stored_line(rollout, self._contexts)[1])
            new.sync()
            with disk_errors(self.path, f"replacing {ROLLOUTS}"):
                os.replace(temporary, self.path / ROLLOUTS)
        except BaseException:
            new.close()
            temporary.unlink(missing_ok=True)
            raise
        self._log.close()
        self._log = new

    def write_config(self, config: dict[str, Any]) -> None:
        write_config(self.path, config)

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_summary(self.path, summary)

    def write_results(self, results: Iterable[dict[str, Any]]) -> None:
        """One flat record per rollout, without its tokens and texts: what a data frame is made of."""
        write_jsonl(self.path / RESULTS, results)


def latest_rollouts(path: Path) -> Iterator[Rollout]:
    """The rollouts in a file, each once, in the order of the file: of one that was stored twice, the last.

    Raises RecordError, naming file and line, for a line that holds no rollout, and OSError.
    """
    last = {place: number for number, place in enumerate(read_lines(path, _place, RecordError))}
    wanted = set(last.values())
    for number, rollout in enumerate(read_rollouts(path)):
        if number in wanted:
            yield rollout


def _place(line: str) -> Any:
    """What tells the rollout in a line from others."""
    record = parse_record(line)
    return record.get("id") or (record["scaffold"], record["task_id"], *(record["info"].get(key) for key in PLACE))


def refuse_foreign(path: Path) -> None:
    """Raises ConfigError if the folder holds files, but no run: they may be there for something else. A config.toml is
    that of a run if it says what the run was made of, which configs that somebody wrote do not."""
    if not path.is_dir() or (path / ROLLOUTS).exists():
        return
    if (path / CONFIG).exists() and RECORD in read_run_config(path):
        return
    if others := sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")):
        raise ConfigError(f"{path} holds other files ({', '.join(others[:3])}); choose a new --out folder")


def stored_line(rollout: Rollout, contexts: ContextStore) -> tuple[Rollout, str]:
    """A rollout, and its line, which refers to its context. One that has no form as JSON is replaced by an error with
    its task, tokens and times, so that it costs no other rollout. Raises RunStopped if the disk refuses."""
    with disk_errors(contexts.folder, "storing a context"):
        try:
            return rollout, rollout.to_json(contexts)
        except RecordError as error:
            bare = Rollout(rollout.id, rollout.task_id, rollout.environment, rollout.scaffold)
            bare.root_usage, bare.sub_usage, bare.timing = rollout.root_usage, rollout.sub_usage, rollout.timing
            bare.question, bare.gold, bare.group = rollout.question, rollout.gold, rollout.group
            bare.info = {key: rollout.info[key] for key in PLACE if key in rollout.info}
            return failed(bare, error), bare.to_json()


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Replaces the config.toml of a folder. Raises RunStopped when the disk refuses."""
    with disk_errors(folder, f"writing {CONFIG}"):
        replace_file(folder / CONFIG, tomli_w.dumps(plain(config)))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Replaces the summary.json of a folder. Raises RunStopped when the disk refuses."""
    with disk_errors(folder, f"writing {SUMMARY}"):
        replace_file(folder / SUMMARY, json.dumps(summary, indent=1, allow_nan=False) + "\n")


def read_run_config(path: Path) -> dict[str, Any]:
    """The config.toml of a run's folder. Raises ConfigError where there is none or it is damaged."""
    try:
        return read_toml(path / CONFIG, ConfigError)
    except OSError as error:
        below = min(path.glob(f"*/{CONFIG}"), default=None)
        hint = "" if below is None else f"; name a run in it, such as {below.parent}"
        raise ConfigError(f"{path} holds no run: cannot read {CONFIG} ({error.strerror}){hint}") from error


def read_summary(path: Path) -> dict[str, Any]:
    """The summary.json of a run's folder; {} where it was not written yet. Raises ConfigError where it is damaged."""
    try:
        summary = json.loads((path / SUMMARY).read_text("utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path / SUMMARY} is damaged: {error}") from error
    if not isinstance(summary, dict):
        raise ConfigError(f"{path / SUMMARY} is damaged: it holds no JSON object")
    return summary


def short_names(places: Sequence[Path]) -> dict[Path, str]:
    """The last parts of each path, as many as tell it apart from the others: `x` and `y`, or `a/x` and `b/x`."""
    names: dict[Path, str] = {}
    left, length = list(dict.fromkeys(places)), 1
    everyone = list(left)
    while left:
        counts = Counter(_end_of(place, length) for place in everyone)
        for place in left:
            if counts[_end_of(place, length)] == 1 or length >= len(place.parts):
                names[place] = _end_of(place, length)
        left, length = [place for place in left if place not in names], length + 1
    return names


def _end_of(place: Path, length: int) -> str:
    return "/".join(part for part in place.parts[-length:] if part != "/")


def run_status(path: Path) -> str:
    """How the run in a folder ended, by its summary.json; `running` while a process adds rollouts to it, and `stopped`
    where none does and the run did not come to say how it ended. Of several runs in one folder: while one is running.

    Raises ConfigError where summary.json is damaged.
    """
    stored = read_summary(path).get("status", "running")
    if stored not in ("running", "failed"):
        return stored
    return "running" if any(map(is_written, (path / ROLLOUTS, *path.glob(f"*/{ROLLOUTS}")))) else "stopped"


def plain(value: Any) -> Any:
    """TOML has no null and only text keys: None is left out, tuples are lists, paths are text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value if item is not None]
    return value if isinstance(value, str | int | float | bool) else str(value)
