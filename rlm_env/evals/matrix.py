"""An eval on several environments: the same model, scaffolds and engines, one limit on money, one table at the end.

Each environment is a run (`run.py`) in its own folder. Everything that can be wrong with any of the runs is found
before an engine is started.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.evals.config import EvalConfig
from rlm_env.evals.hooks import NO_HOOKS, Hooks
from rlm_env.evals.run import EvalRun, prepare_run, run_eval
from rlm_env.evals.stored import DONE, EvalResult, stored_eval
from rlm_env.evals.summary import EvalSummary
from rlm_env.repl import ReplPools
from rlm_env.runs.config import RECORD
from rlm_env.runs.console import say
from rlm_env.runs.engine_table import by_role
from rlm_env.runs.engines import EnginePool
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import CONFIG, read_run_config, run_status, write_config, write_summary
from rlm_env.runs.models import resolve_engines
from rlm_env.runs.prices import CostLimit
from rlm_env.runs.record import new_record


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """How an eval on several environments ended; `status` is `complete`, `stopped by max-cost`, or that of the first
    run that is neither."""

    path: Path
    status: str
    summaries: dict[str, EvalSummary]
    """By the environments' labels."""
    title: str


async def run_any(
    config: EvalConfig, console: Console, *, resume: bool = False, hooks: Hooks = NO_HOOKS
) -> EvalResult | MatrixResult:
    """Runs `config` on one environment or on several. Raises what `run_eval` raises."""
    if config.is_matrix:
        return await run_matrix(config, console, resume=resume, hooks=hooks)
    (run,) = config.runs().values()
    return await run_eval(run, console, resume=resume, hooks=hooks)


async def run_matrix(
    config: EvalConfig, console: Console, *, resume: bool = False, hooks: Hooks = NO_HOOKS
) -> MatrixResult:
    """Runs `config`, or the rest of it, environment by environment.

    Raises what `run_eval` raises; rollouts that had finished by then are on disk.
    """
    entries = by_role(config.engine_entries())
    models = resolve_engines(entries)
    cost = CostLimit(config.max_cost)
    record = new_record()
    if resume:
        record["started"] = _check_matrix_resume(config)
    async with contextlib.AsyncExitStack() as stack:
        pools = await stack.enter_async_context(ReplPools())
        engines = await stack.enter_async_context(EnginePool(entries, models, config.out, console, config.seed))
        prepared: dict[str, EvalRun] = {}
        for label, run_config in config.runs().items():
            again = resume and (run_config.out / CONFIG).exists()
            run = prepare_run(run_config, models, console, cost, pools, engines, resume=again, hooks=hooks)
            prepared[label] = await stack.enter_async_context(run)
        write_config(config.out, {**config.as_toml(), RECORD: record})
        statuses = dict.fromkeys(prepared, "not begun")
        try:
            for number, (label, run) in enumerate(prepared.items(), 1):
                statuses[label] = "failed"
                say(console, f"{label} ({number} of {len(prepared)})")
                statuses[label] = (await run.finish()).status
        finally:
            write_summary(config.out, _summary(config, prepared, statuses))
        status = next((status for status in statuses.values() if status not in DONE), "complete")
        summaries = {label: run.summarize() for label, run in prepared.items()}
        return MatrixResult(config.out, status, summaries, matrix_title(config))


def _check_matrix_resume(config: EvalConfig) -> str:
    """When the eval in the folder was started. Raises ConfigError if it had an environment that is now gone."""
    old = read_run_config(config.out)
    labels = {entry.get("label", entry["name"]) for entry in old["environments"]}
    if len(labels) == 1:
        raise ConfigError(f"{config.out} holds a run on one environment; choose another --out")
    if gone := labels - config.runs().keys():
        raise ConfigError(f"{config.out} was made with the environments {', '.join(sorted(gone))} too; put them back")
    return old[RECORD]["started"]


def _summary(config: EvalConfig, runs: dict[str, EvalRun], statuses: dict[str, str]) -> dict[str, Any]:
    """The content of a matrix's summary.json."""
    done = all(status in DONE for status in statuses.values())
    return {
        "status": "complete" if done else "unfinished",
        "title": matrix_title(config),
        "environments": {label: run.to_summary(statuses[label]) for label, run in runs.items()},
    }


def stored_result(path: Path) -> EvalResult | MatrixResult:
    """The result of an eval on disk, as far as it went. Raises ConfigError if the folder holds none."""
    values = read_run_config(path)
    if len(values.get("environments", ())) < 2:
        return stored_eval(path)
    config = EvalConfig.model_validate({key: value for key, value in values.items() if key != RECORD})
    begun = [label for label in config.runs() if (path / label / CONFIG).exists()]
    summaries = {label: stored_eval(path / label).summary for label in begun}
    return MatrixResult(path, run_status(path), summaries, matrix_title(config))


def matrix_title(config: EvalConfig) -> str:
    """One line that says what was run."""
    return f"{config.models_title}: {len(config.environments)} environments x {len(config.scaffolds)} scaffolds"
