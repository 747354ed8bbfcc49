"""The runs below the paths that the viewer was started with. A folder of runs is looked at again whenever it is asked.

A run is an eval, an eval on several environments (each is a run, under one title), a training run, or a file of
rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlm_env.evals.config import EvalConfig
from rlm_env.evals.matrix import matrix_title
from rlm_env.evals.stored import open_stored
from rlm_env.repl.wire import sanitize
from rlm_env.reports.reading import DEPTH, is_training
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import CONFIG, RESULTS, ROLLOUTS, SUMMARY, read_run_config, short_names
from rlm_env.train.report.metrics import METRICS
from rlm_env.view.runs import ViewedEval, ViewedRun
from rlm_env.view.training import ViewedTraining

LINES = ".jsonl"
"""How a file of rollouts is called."""
OF_A_RUN = (CONFIG, ROLLOUTS, SUMMARY, RESULTS)
"""Naming one of these files means the folder that it lies in."""


class Workplace:
    """The runs at some paths."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises ConfigError where there is nothing to view."""
        self.paths = [path.resolve().parent if path.name in OF_A_RUN else path.resolve() for path in paths]
        self._runs: dict[Path, ViewedRun] = {}
        for path in self.paths:
            if not path.exists():
                raise ConfigError(f"there is no {path}; name the output folder of a run, for example outputs/NAME")
            if path.is_file() and path.suffix != LINES:
                raise ConfigError(f"{path} is no file of rollouts ({LINES}); name it, or the output folder of a run")
        if not self.runs():
            raise ConfigError(f"no run in {', '.join(map(str, self.paths))}: there is no {ROLLOUTS} in it, nor below")

    def runs(self) -> list[ViewedRun]:
        """All runs, those that are new included."""
        found = [place for path in self.paths for place in _run_places(path, DEPTH)]
        names = short_names(found)
        for place in found:
            if place not in self._runs:
                self._runs[place] = view_run(sanitize(names[place]), place)
        return [self._runs[place] for place in dict.fromkeys(found)]

    def run(self, name: str) -> ViewedRun:
        """A run by its name. Raises ConfigError where there is none."""
        for run in self._runs.values():
            if run.name == name:
                return run
        raise ConfigError(f"there is no run {name!r}")


def view_run(name: str, place: Path) -> ViewedRun:
    """The run in a folder, or the rollouts in a file. One whose configuration cannot be read is shown all the same."""
    if place.is_file():
        return ViewedRun(name, place.parent, [place.name])
    if not (place / CONFIG).exists():
        return ViewedRun(name, place)
    try:
        return ViewedTraining(name, place) if is_training(place) else ViewedEval(name, open_stored(place))
    except ConfigError as error:
        run = ViewedRun(name, place)
        run.problem = str(error)
        return run


def matrices(workplace: Workplace) -> list[dict[str, Any]]:
    """Title and runs of each eval on several environments."""
    found: list[dict[str, Any]] = []
    by_folder: dict[Path, list[str]] = {}
    for run in workplace.runs():
        by_folder.setdefault(run.path.parent, []).append(run.name)
    for folder, names in by_folder.items():
        if len(names) > 1 and (config := _matrix_config(folder)) is not None:
            found.append({"title": matrix_title(config), "path": str(folder), "runs": names})
    return found


def _matrix_config(folder: Path) -> EvalConfig | None:
    try:
        values = read_run_config(folder)
        return EvalConfig.model_validate({key: value for key, value in values.items() if key != RECORD})
    except (ConfigError, ValueError):
        return None


def _run_places(path: Path, depth: int) -> Iterator[Path]:
    """Files of rollouts and folders of runs, in order."""
    if path.is_file():
        yield path
        return
    if (path / ROLLOUTS).exists() or (path / METRICS).exists():
        yield path
    elif depth and path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                yield from _run_places(entry, depth - 1)
