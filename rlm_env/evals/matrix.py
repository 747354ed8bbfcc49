"""Several environments in one go: the same model, scaffolds and budgets, one engine for all, one table at the end.

Covered: the order of runs, what they share (engines, money), the folder that holds them. Not covered: a run (`run.py`).
Everything that can be wrong with any of the runs is found before the engine is started.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.evals.config import MatrixConfig
from rlm_env.evals.engines import Engines, open_engines
from rlm_env.evals.run import Purse, Run, prepare, stored_summary
from rlm_env.evals.summary import Summary
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import CONFIG, read_config, write_config, write_summary
from rlm_env.runs.models import resolve_models
from rlm_env.runs.record import versions


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """How a matrix ended: the summaries by label, and `complete` or `stopped by max-cost`."""

    path: Path
    status: str
    summaries: dict[str, Summary]
    title: str


async def run_matrix(config: MatrixConfig, console: Console, *, resume: bool = False) -> MatrixResult:
    """Runs what `config` describes, environment by environment, or what is left of it.

    Raises what `run_eval` raises; what had finished by then is on disk.
    """
    runs = config.runs()
    models = resolve_models(config)
    purse = Purse(config.max_cost)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if resume:
        started = _check_resume(config)
    async with contextlib.AsyncExitStack() as stack:
        prepared: dict[str, Run] = {}
        for label, run_config in runs.items():
            again = resume and (run_config.out / CONFIG).exists()
            run = prepare(run_config, models, console, purse, resume=again)
            prepared[label] = await stack.enter_async_context(run)
        record = {"started": started, "versions": versions()}
        write_config(config.out, {**config.as_toml(), RECORD: record})
        opened: list[Engines] = []

        @contextlib.asynccontextmanager
        async def shared() -> AsyncIterator[Engines]:
            if not opened:
                opened.append(await stack.enter_async_context(open_engines(config, models, config.out, console)))
            yield opened[0]

        statuses = dict.fromkeys(prepared, "not begun")
        try:
            for number, (label, run) in enumerate(prepared.items(), 1):
                statuses[label] = "failed"
                console.print(f"{label} ({number} of {len(prepared)})", markup=False, highlight=False)
                statuses[label] = (await run.finish(shared)).status
        finally:
            write_summary(config.out, _summary(config, prepared, statuses))
        status = next((status for status in statuses.values() if status != "complete"), "complete")
        summaries = {label: run.summarize() for label, run in prepared.items()}
        return MatrixResult(config.out, status, summaries, matrix_title(config))


def _check_resume(config: MatrixConfig) -> str:
    """When the matrix in the folder was begun. Raises ConfigError where it had an environment that is now gone."""
    old = read_config(config.out)
    if "environments" not in old:
        raise ConfigError(f"{config.out} holds a run on one environment, not a matrix; choose another --out")
    before = {entry.get("label", entry["name"]) for entry in old["environments"]}
    if gone := before - config.runs().keys():
        raise ConfigError(f"{config.out} was made with the environments {', '.join(sorted(gone))} too; put them back")
    return old[RECORD]["started"]


def _summary(config: MatrixConfig, runs: dict[str, Run], statuses: dict[str, str]) -> dict[str, Any]:
    done = all(status == "complete" for status in statuses.values())
    return {
        "status": "complete" if done else "unfinished",
        "title": matrix_title(config),
        "environments": {label: run.to_summary(statuses[label]) for label, run in runs.items()},
    }


def stored_matrix(path: Path) -> tuple[dict[str, Summary], str]:
    """The summaries of a matrix on disk, as far as its runs were begun, and its title. Raises ConfigError."""
    config = MatrixConfig.model_validate({k: v for k, v in read_config(path).items() if k != RECORD})
    begun = [label for label in config.runs() if (path / label / CONFIG).exists()]
    return {label: stored_summary(path / label)[0] for label in begun}, matrix_title(config)


def is_matrix(path: Path) -> bool:
    """Whether the folder of a run holds several. Raises ConfigError where it holds none."""
    return "environments" in read_config(path)


def matrix_title(config: MatrixConfig) -> str:
    """One line that says what was run."""
    sub = f", sub-LLM {config.sub_model}" if config.sub_model else ""
    return f"{config.model}{sub}: {len(config.environments)} environments x {len(config.scaffolds)} scaffolds"
