"""Reads the numbers of a report from the folders of runs, one run after the other.

Rollouts are read line by line; of a run that was read only its summary and the scores of its tasks stay in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlm_env.evals.config import EvalConfig
from rlm_env.evals.matrix import matrix_title
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.evals.stored import open_stored
from rlm_env.evals.summary import compare_scores, scores_by_task, with_holm
from rlm_env.reports.data import SCHEMA, Curve, EvalReport, ReportData, RunComparison, RunFacts, TrainingReport
from rlm_env.reports.programs import programs_by_step
from rlm_env.rollout import RecordError
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import CONFIG, ROLLOUTS, read_run_config, run_status, short_names
from rlm_env.runs.record import versions
from rlm_env.train.report.curves import curves
from rlm_env.train.report.metrics import METRICS
from rlm_env.train.report.report import load_run

DEPTH = 3
"""How deep runs are looked for below a folder that is none itself."""
LONG_ANSWER = 200
"""Characters of an answer from which its hash votes in its place: a run may hold gigabytes of answers."""
_USER = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class _Scores:
    """What is kept of an eval for comparisons with others."""

    run: str
    tasks: tuple[str, str]
    """Environment and hash of the tasks."""
    by_scaffold: dict[str, dict[str, list[float]]]
    by_test: bool
    """A test may have ended it, so that only what holds at any number of tasks holds."""


def run_folders(path: Path, depth: int = DEPTH) -> list[Path]:
    """The folder itself if it holds a run, otherwise the folders of runs below it, in order; itself where there are
    none. An eval on several environments is one run."""
    found = list(_run_folders(path, depth))
    return found or [path]


def _run_folders(path: Path, depth: int) -> Iterator[Path]:
    if any((path / name).exists() for name in (CONFIG, ROLLOUTS, METRICS)):
        yield path
    elif depth and path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                yield from _run_folders(entry, depth - 1)


def read_report(
    folders: Sequence[Path],
    tell: Callable[[Path], None] = lambda folder: None,
    left_out: Callable[[Path, ValueError], None] | None = None,
) -> ReportData:
    """The numbers of evals and training runs. `tell` is called with each folder before it is read, `left_out` with one
    that cannot be read, and why; the report is then of the others.

    Without `left_out`, raises ConfigError where a folder holds no run, and RecordError where a line of its rollouts is
    damaged.
    """
    read = _Read()
    for folder, name in zip(folders, run_names(folders), strict=True):
        tell(folder)
        try:
            read.add(_read_run(folder, name))
        except (ConfigError, RecordError) as error:
            if left_out is None:
                raise
            left_out(folder, error)
    version = versions().get("rlm-env", "")
    return ReportData(SCHEMA, version, read.evals, read.matrices, _comparisons(read.scores), read.trainings)


@dataclass(slots=True)
class _Read:
    """What was read of one run, or of several."""

    evals: list[EvalReport] = field(default_factory=list)
    matrices: list[RunFacts] = field(default_factory=list)
    scores: list[_Scores] = field(default_factory=list)
    trainings: list[TrainingReport] = field(default_factory=list)

    def add(self, other: _Read) -> None:
        self.evals += other.evals
        self.matrices += other.matrices
        self.scores += other.scores
        self.trainings += other.trainings


def _read_run(folder: Path, name: str) -> _Read:
    """Raises ConfigError and RecordError."""
    if is_training(folder):
        return _Read(trainings=[_read_training(folder, name)])
    read, parts = _Read(), list(_parts(folder))
    if parts[0][1]:
        read.matrices.append(_matrix_facts(folder, name))
    for path, label in parts:
        report, scores = _read_eval(path, f"{name}/{label}" if label else name, name if label else None)
        read.evals.append(report)
        read.scores.append(scores)
    return read


def is_training(folder: Path) -> bool:
    """True for the folder of a training run, also before its first step has ended. Raises ConfigError where a folder
    without metrics holds no run."""
    return (folder / METRICS).exists() or "checkpoint" in read_run_config(folder)


def run_names(folders: Sequence[Path]) -> list[str]:
    """A short name for each run, with a number behind it where the same folder is named several times."""
    paths = [folder.resolve() for folder in folders]
    short = short_names(paths)
    names = [short[path] for path in paths]
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _parts(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folders of the evals that one folder holds, with their labels; its own, without a label, for an eval on one
    environment. Raises ConfigError where there is none."""
    environments = read_run_config(folder).get("environments", ())
    if len(environments) < 2:
        yield folder, ""
        return
    labels = [str(one.get("label") or one.get("name")) for one in environments]
    begun = [label for label in labels if (folder / label / CONFIG).exists()]
    if not begun:
        raise ConfigError(f"{folder}: none of its {len(labels)} environments has been begun")
    for label in begun:
        yield folder / label, label


def _read_eval(path: Path, name: str, matrix: str | None) -> tuple[EvalReport, _Scores]:
    stored = open_stored(path)
    last = {one.key: _bounded(one) for one in stored.stats()}
    result = stored.result(last.values())
    scores = {
        scaffold: dict(scores_by_task(one for one in last.values() if one.scaffold == scaffold))
        for scaffold in stored.config.scaffolds
    }
    facts = _facts(path, name, result.title, read_run_config(path))
    tasks = (stored.config.environment, str(stored.record.get("tasks_sha256")))
    return EvalReport(facts, result.label, matrix, result.summary), _Scores(
        name, tasks, scores, result.summary.stopping is not None
    )


def _bounded(stats: RolloutStats) -> RolloutStats:
    """The same, with the hash of a long answer in its place."""
    if len(stats.answer) <= LONG_ANSWER:
        return stats
    ballot = " ".join(stats.answer.split()).casefold()
    return replace(stats, answer=hashlib.sha256(ballot.encode("utf-8", "surrogatepass")).hexdigest() if ballot else "")


def _matrix_facts(path: Path, name: str) -> RunFacts:
    values = read_run_config(path)
    config = EvalConfig.model_validate({key: value for key, value in values.items() if key != RECORD})
    return _facts(path, name, matrix_title(config), values)


def _read_training(path: Path, name: str) -> TrainingReport:
    run = load_run(path)
    values = read_run_config(path) if (path / CONFIG).exists() else {}
    drawn = [Curve(**one) for one in curves(run.steps, run.evaluations)]
    title = f"training of {values.get('model', 'an unknown model')}"
    steps = run.steps[-1]["step"] if run.steps else 0
    return TrainingReport(_facts(path, name, title, values), steps, drawn, programs_by_step(path))


def _facts(path: Path, name: str, title: str, values: dict[str, Any]) -> RunFacts:
    record = values.pop(RECORD, {})
    return RunFacts(
        name=name,
        title=_without_users(title),
        status=run_status(path),
        started=record.get("started"),
        seed=values.get("seed"),
        config=_without_users({key: value for key, value in values.items() if key != "out"}),
        record=_without_users(record),
    )


def _without_users(value: Any) -> Any:
    """The same without names and passwords in addresses: reports are made to be shown."""
    if isinstance(value, dict):
        return {key: _without_users(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_users(one) for one in value]
    return _USER.sub("", value) if isinstance(value, str) else value


def _comparisons(evals: Sequence[_Scores]) -> list[RunComparison]:
    """Each eval with the first one on the same tasks, scaffold by scaffold; corrected together."""
    first: dict[tuple[str, str], _Scores] = {}
    scaffolds, found = [], []
    for one in evals:
        base = first.setdefault(one.tasks, one)
        for scaffold in one.by_scaffold if base is not one else ():
            theirs = base.by_scaffold.get(scaffold, {})
            ours, anytime = one.by_scaffold[scaffold], one.by_test or base.by_test
            comparison = compare_scores(one.run, ours, base.run, theirs, anytime=anytime)
            if comparison is not None:
                scaffolds.append(scaffold)
                found.append(comparison)
    return [RunComparison(*pair) for pair in zip(scaffolds, with_holm(found), strict=True)]
