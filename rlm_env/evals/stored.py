"""An eval on one environment as its folder holds it, and the result of one that has just ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_env.evals.baselines import Baseline
from rlm_env.evals.config import EvalRunConfig
from rlm_env.evals.fairness import setting_differences
from rlm_env.evals.outline import outline
from rlm_env.evals.rollout_stats import RolloutStats, stats_of
from rlm_env.evals.setup import RolePrices, role_prices
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import EvalSummary, summarize
from rlm_env.evals.until import stored_stopping
from rlm_env.lines import read_lines
from rlm_env.readable.words import counted
from rlm_env.rollout import RecordError, Rollout
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.folder import CONFIG, ROLLOUTS, read_run_config, read_summary, run_status
from rlm_env.runs.record import take_record

DONE = ("complete", "decided", "pilot")
"""Words for a run with nothing left to do."""


@dataclass(frozen=True, slots=True)
class EvalResult:
    """How a run on one environment ended; `status` is `complete`, `decided` (by the test of `--until`), `pilot` (of a
    larger run) or `stopped by max-cost`."""

    path: Path
    status: str
    label: str
    summary: EvalSummary
    title: str

    @property
    def summaries(self) -> dict[str, EvalSummary]:
        """The one summary by its label, in the form that an eval on several environments has."""
        return {self.label: self.summary}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The folder of an eval on one environment: what was asked for, what it was made of, and its numbers."""

    path: Path
    config: EvalRunConfig
    record: dict[str, Any]
    """The table `[record]` of config.toml."""
    prices: RolePrices | None

    def stats_of(self, rollout: Rollout, *, read_code: bool = True) -> RolloutStats:
        """The numbers of one of its rollouts, as `stats_of` makes them."""
        return stats_of(rollout, self.prices and self.prices.pair, read_code=read_code)

    def stats(self) -> Iterator[RolloutStats]:
        """The numbers of its rollouts, read one by one, in the order of the file. Raises ConfigError where there is no
        file of rollouts, and RecordError, which names the line, where one is damaged."""
        if not (self.path / ROLLOUTS).exists():
            raise ConfigError(f"{self.path} holds no rollouts: there is no {ROLLOUTS}")
        return (self.stats_of(one) for one in read_lines(self.path / ROLLOUTS, outline, RecordError))

    def result(self, stats: Iterable[RolloutStats]) -> EvalResult:
        """The result of these rollouts. Of one that was stored twice, the last line counts."""
        old = read_summary(self.path)
        last = {one.key: one for one in stats}
        summary = summarize(
            last.values(),
            self.config.scaffolds,
            self.config.seed,
            stored_baselines(old),
            setting_differences(self.record.get("scaffolds", {})),
            old.get("notes", ()),
            stored_stopping(old),
        )
        title = run_title(self.config, self.record["tasks"])
        return EvalResult(self.path, run_status(self.path), self.config.environments[0].label, summary, title)


def holds_pilot(path: Path) -> bool:
    """True if the folder holds the pilot of an eval that has not begun itself."""
    return (path / CONFIG).exists() and bool(read_run_config(path).get(RECORD, {}).get("pilot"))


def open_stored(path: Path, prices_of: EvalRunConfig | None = None) -> StoredRun:
    """The eval in a folder. `prices_of`: a config whose prices count instead of the stored ones. Raises ConfigError if
    the folder holds none, or one on several environments."""
    stored = read_run_config(path)
    try:
        config = EvalRunConfig.model_validate({key: value for key, value in stored.items() if key != RECORD})
    except ValidationError as error:
        raise ConfigError(explain_validation(error, EvalRunConfig, f"{path / CONFIG}")) from error
    record = take_record(stored, path, needed=("tasks",))
    priced = prices_of or config
    return StoredRun(path, config, record, role_prices(priced, priced.options))


def stored_eval(path: Path) -> EvalResult:
    """The result of a run on disk, as far as it went. Raises ConfigError if the folder holds none."""
    run = open_stored(path)
    return run.result(run.stats())


def stored_baselines(summary: dict[str, Any]) -> list[Baseline]:
    """The baselines in a summary.json."""
    return [Baseline(f["name"], f["score"] and Estimate(**f["score"])) for f in summary.get("baselines", ())]


def run_title(config: EvalRunConfig, tasks: int) -> str:
    """One line that says what was run."""
    repeats = f" x {config.repeats} rollouts" if config.repeats > 1 else ""
    return f"{config.environment}, {config.models_title}: {counted(tasks, 'task')}{repeats}"
