"""An eval on one environment as its folder holds it, and the result of one that has just ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_env.evals.baselines import Baseline
from rlm_env.evals.config import EvalRunConfig
from rlm_env.evals.fairness import setting_differences
from rlm_env.evals.rollout_stats import stats_of
from rlm_env.evals.setup import role_prices
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import EvalSummary, summarize
from rlm_env.rollout import read_rollouts
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.folder import CONFIG, ROLLOUTS, read_run_config, read_summary


@dataclass(frozen=True, slots=True)
class EvalResult:
    """How a run on one environment ended; `status` is `complete` or `stopped by max-cost`."""

    path: Path
    status: str
    label: str
    summary: EvalSummary
    title: str

    @property
    def summaries(self) -> dict[str, EvalSummary]:
        """As of several environments: by label."""
        return {self.label: self.summary}


def stored_eval(path: Path) -> EvalResult:
    """The result of a run on disk, as far as it went. Raises ConfigError if the folder holds none."""
    stored = read_run_config(path)
    record = stored.pop(RECORD)
    try:
        config = EvalRunConfig.model_validate(stored)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, EvalRunConfig, f"{path / CONFIG}")) from error
    prices = role_prices(config)
    if not (path / ROLLOUTS).exists():
        raise ConfigError(f"{path} holds no rollouts: there is no {ROLLOUTS}")
    stats = {
        one.key: one
        for one in (stats_of(rollout, prices and prices.pair) for rollout in read_rollouts(path / ROLLOUTS))
    }
    old = read_summary(path)
    differences = setting_differences(record["scaffolds"])
    summary = summarize(
        stats.values(), config.scaffolds, config.seed, stored_baselines(old), differences, old.get("notes", ())
    )
    label = config.environments[0].label
    return EvalResult(path, stored_status(path), label, summary, run_title(config, record["tasks"]))


def stored_status(path: Path) -> str:
    """How the run in a folder ended, or `running`."""
    return read_summary(path).get("status", "running")


def stored_baselines(summary: dict[str, Any]) -> list[Baseline]:
    """The baselines in a summary.json."""
    return [Baseline(f["name"], f["score"] and Estimate(**f["score"])) for f in summary.get("baselines", ())]


def run_title(config: EvalRunConfig, tasks: int) -> str:
    """One line that says what was run."""
    repeats = f" x {config.repeats} rollouts" if config.repeats > 1 else ""
    return f"{config.environment}, {config.models_title}: {tasks} tasks{repeats}"
