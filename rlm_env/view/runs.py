"""Runs as the viewer knows them: what is in a folder, its rollouts, and its numbers.

The numbers are those of the console and of summary.json: `summarize` makes them in all three places, and the tables of
`evals/report.py` and `train/report/` are shown cell by cell. What a training run has besides is in `training.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from rlm_env.contexts import CONTEXTS
from rlm_env.evals.report import report_notes, report_tables, report_warnings
from rlm_env.evals.rollout_stats import RolloutStats, stats_of
from rlm_env.evals.stored import EvalResult, StoredRun, run_title
from rlm_env.evals.summary import summarize
from rlm_env.rollout import RecordError, Rollout
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import ROLLOUTS, SUMMARY, read_summary, run_status
from rlm_env.runs.jsonl import is_written
from rlm_env.runs.models import resolve_model
from rlm_env.runs.tables import Cells
from rlm_env.view.index import RolloutIndex
from rlm_env.view.stored_context import StoredContexts


class ViewedRun:
    """A file of rollouts, of which nothing else is known; runs with a folder of their own are subclasses."""

    kind: ClassVar[str] = "rollouts"

    def __init__(self, name: str, path: Path, files: Sequence[str] = (ROLLOUTS,)) -> None:
        self.name, self.path = name, path
        self.sources = [RolloutIndex(path / file, self._stats_of, self._key_of) for file in files]
        self.contexts = StoredContexts(path / CONTEXTS)
        self.problem: str | None = None
        """Why the folder could not be read as the run that it seems to be."""

    def _stats_of(self, rollout: Rollout) -> RolloutStats:
        return stats_of(rollout, read_code=False)

    def _key_of(self, rollout: Rollout) -> str:
        return rollout.id or f"{rollout.scaffold}/{rollout.task_id}/{int(rollout.info.get('repeat', 0))}"

    def stats(self, *, programs: bool) -> list[RolloutStats]:
        """The numbers of the rollouts that were read, each rollout once. `programs`: with what their code is, which
        takes as long to read as all the rest."""
        found = [(source, number) for source in self.sources for number in list(source.lines.values())]
        if not programs:
            return [source.stats[number] for source, number in found]
        return [replace(source.stats[number], program=source.program(number)) for source, number in found]

    def programs(self) -> dict[str, list[str]]:
        """Kind of program -> the keys of its rollouts."""
        found: dict[str, list[str]] = {}
        for source in self.sources:
            for key, number in list(source.lines.items()):
                if (written := source.program(number)) is not None:
                    found.setdefault(written.program.value, []).append(key)
        return found

    @property
    def complete(self) -> bool:
        return all(source.complete for source in self.sources)

    def refresh(self, seconds: float | None = None) -> None:
        """Reads what is new in its files, each for about `seconds` at most."""
        for source in self.sources:
            source.refresh(seconds)

    def header(self) -> dict[str, Any]:
        """What is known without reading any rollout."""
        facts = {"title": self.path.name, **self._facts()}
        return {"name": self.name, "kind": self.kind, "path": str(self.path), "problem": self.problem, **facts}

    def _facts(self) -> dict[str, Any]:
        return {"status": "running" if self.is_live else ""}

    @property
    def is_live(self) -> bool:
        """A process is adding rollouts."""
        return is_written(self.sources[0].path)

    def state(self) -> Any:
        """Changes whenever its numbers may."""
        summary = self.path / SUMMARY
        stamp = summary.stat().st_mtime_ns if summary.exists() and not self.is_live else 0
        return [(source.generation, len(source.rows)) for source in self.sources], stamp

    def stored_summary(self) -> dict[str, Any]:
        """The content of summary.json; {} where there is none, or a damaged one, which is then the run's problem."""
        try:
            return read_summary(self.path)
        except ConfigError as error:
            self.problem = str(error)
            return {}

    def status(self) -> str:
        """How it ended, if it did."""
        try:
            return run_status(self.path)
        except ConfigError as error:
            self.problem = str(error)
            return "running" if self.is_live else "stopped"

    def numbers(self, *, programs: bool = True) -> dict[str, Any]:
        """Tables and notes, as the console prints them, and the summary that they are made of. `programs`: with those
        of programs."""
        stats = self.stats(programs=programs)
        if not stats:
            return {"title": self.path.name, "summary": None, "tables": [], "notes": [], "warnings": []}
        scaffolds = list(dict.fromkeys(one.scaffold for one in stats))
        return shown_summary(EvalResult(self.path, "", "", summarize(stats, scaffolds), self.path.name))

    def limits(self, rollout: Mapping[str, Any]) -> dict[str, Any]:
        """The limits that a rollout had; {} where they are not known."""
        del rollout
        return {}

    def model_folder(self) -> Path | None:
        """The folder of the model that sampled, if it is on this machine."""
        return None

    def find(self, key: str) -> tuple[RolloutIndex, int]:
        """File and row of a rollout. Reads on until it is found. Raises RecordError where there is none."""
        for seconds in (0.0, None):
            self.refresh(seconds)
            for source in self.sources:
                if key in source.lines:
                    return source, source.lines[key]
        raise RecordError(f"{self.name} has no rollout {key!r}")


class ViewedEval(ViewedRun):
    """An eval on one environment."""

    kind = "eval"

    def __init__(self, name: str, stored: StoredRun) -> None:
        self.stored = stored
        super().__init__(name, stored.path)

    def _stats_of(self, rollout: Rollout) -> RolloutStats:
        return self.stored.stats_of(rollout, read_code=False)

    def _key_of(self, rollout: Rollout) -> str:
        return f"{rollout.scaffold}/{rollout.task_id}/{int(rollout.info.get('repeat', 0))}"

    def _facts(self) -> dict[str, Any]:
        config, record, summary = self.stored.config, self.stored.record, self.stored_summary()
        planned = record.get("tasks", 0) * config.repeats * len(config.scaffolds)
        return {
            "title": run_title(config, record.get("tasks", 0)),
            "status": self.status(),
            "started": record.get("started"),
            "environments": [config.environments[0].label],
            "scaffolds": list(config.scaffolds),
            "model": config.models_title,
            "planned": planned,
            "versions": record.get("versions", {}),
            "spent_usd": summary.get("spent_usd"),
            "scores": [
                (one["scaffold"], f"{one['score']['mean']:.3f}") for one in summary.get("scaffolds", ()) if one["score"]
            ],
        }

    def numbers(self, *, programs: bool = True) -> dict[str, Any]:
        try:
            return shown_summary(self.stored.result(self.stats(programs=programs)))
        except ConfigError as error:  # a damaged summary.json, of which baselines and notes are lost
            numbers = super().numbers(programs=programs)
            return numbers | {"warnings": [str(error), *numbers["warnings"]]}

    def limits(self, rollout: Mapping[str, Any]) -> dict[str, Any]:
        described = self.stored.record.get("scaffolds", {}).get(rollout["scaffold"], {})
        return described.get("config", {})

    def model_folder(self) -> Path | None:
        root = self.stored.config.root
        return local_model(root.tokens) if root.tokens else local_model(root.model, root.base_url)


def local_model(spec: str, base_url: str | None = None) -> Path | None:
    """The folder of a model, if it is on this machine."""
    try:
        return resolve_model(str(spec), base_url).folder
    except ConfigError:
        return None


def shown_summary(result: EvalResult) -> dict[str, Any]:
    """The numbers of an eval for the page."""
    summary = result.summary
    return {
        "title": result.title,
        "summary": summary.to_dict(),
        "tables": [shown_table(table) for table in report_tables(summary, result.title)],
        "notes": report_notes(summary),
        "warnings": report_warnings(summary),
    }


def shown_table(cells: Cells) -> dict[str, Any]:
    """A table as the console prints it."""
    return asdict(cells)
