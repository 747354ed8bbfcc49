"""Runs an eval on one environment: the same tasks and repeats in every scaffold, stored as they finish, resumable.

Covered: the order of work, bounded concurrency, what stops a run. Not covered: what is made before (`setup.py`),
engines (`engines.py`), numbers (`summary.py`), several environments (`matrix.py`), scoring (`rlm_env/scoring/`).
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from rlm_env.environment import Environment, environment_name
from rlm_env.evals.baselines import Baseline, measure_baselines
from rlm_env.evals.config import EvalRunConfig, check_eval_resume
from rlm_env.evals.engines import Engines, api_key, open_engines
from rlm_env.evals.fairness import setting_differences
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.prices import Price
from rlm_env.evals.progress import Progress
from rlm_env.evals.rollout_stats import Key, RolloutStats, stats_of
from rlm_env.evals.setup import load_tasks, make_environment, make_scaffolds, price_pair
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import EvalSummary, summarize
from rlm_env.llm.base import EngineUnavailable
from rlm_env.repl import ReplPools
from rlm_env.rollout import Rollout, StopReason, read_rollouts
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError, RunStopped, explain_validation
from rlm_env.runs.folder import CONFIG, ROLLOUTS, RunFolder, read_run_config, read_summary
from rlm_env.runs.models import ModelRef, resolve_models
from rlm_env.runs.record import check_record, describe_engines, engine_changes, make_record
from rlm_env.scaffolds import Scaffold
from rlm_env.scoring import score_rollout
from rlm_env.task import Task

SUMMARY_SECONDS = 5.0
"""summary.json is updated this often during a run."""

PlannedRollout = tuple[Scaffold, Task, int]
"""(scaffold, task, repeat)"""


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


@dataclass(slots=True)
class CostLimit:
    """The US dollars that one run, or several together, may spend; and what they have spent."""

    limit: float | None = None
    spent: float = 0.0
    """Includes rollouts that failed and were repeated."""

    @property
    def reached(self) -> bool:
        return self.limit is not None and self.spent >= self.limit


OpenEngines = Callable[[], AbstractAsyncContextManager[Engines]]


async def run_eval(config: EvalRunConfig, console: Console, *, resume: bool = False) -> EvalResult:
    """Runs `config` into its output folder, or the rest of it.

    Raises ConfigError before anything is started, RunStopped when the engine or the disk gives up, CancelledError
    when it is interrupted; rollouts that had finished by then are on disk.
    """
    models = resolve_models(config.model, config.sub_model, config.base_url)
    async with (
        ReplPools() as pools,
        prepare_run(config, models, console, CostLimit(config.max_cost), pools, resume=resume) as run,
    ):
        return await run.finish(lambda: open_engines(config, models, config.out, console))


@contextlib.asynccontextmanager
async def prepare_run(
    config: EvalRunConfig,
    models: dict[str, ModelRef],
    console: Console,
    cost: CostLimit,
    pools: ReplPools,
    *,
    resume: bool,
) -> AsyncIterator[EvalRun]:
    """A run with all that it needs but engines, and with what is stored of it. Raises ConfigError."""
    prices = price_pair(config)
    api_key(config)  # a missing one is found before anything is made
    environment = make_environment(config, models["root"])
    with console.status(f"making the tasks of {config.environment}"):
        tasks = load_tasks(config, environment)
    if len(tasks) < config.n:
        console.print(f"note: the split '{config.split}' has {len(tasks)} tasks only", markup=False, style="yellow")
    async with make_scaffolds(config, environment, models["root"], pools) as scaffolds:
        record = make_record(tasks, scaffolds, models, environment_name(environment))
        with RunFolder(config.out, resume=resume) as folder:
            if resume:
                old = read_run_config(config.out)
                old_record = old.pop(RECORD, {})
                check_eval_resume(old, config, config.out)
                for warning in check_record(old_record, record, tasks, config.out):
                    console.print(f"note: {warning}", markup=False, style="yellow")
                record |= {key: old_record[key] for key in ("started", "engines") if key in old_record}
            run = EvalRun(config, record, environment, tasks, scaffolds, folder, console, prices, cost)
            run.write_config()
            run.load_stored()
            yield run


@dataclass(slots=True)
class EvalRun:
    """A run that is going on."""

    config: EvalRunConfig
    record: dict[str, Any]
    environment: Environment
    tasks: list[Task]
    scaffolds: dict[str, Scaffold]
    folder: RunFolder
    console: Console
    prices: tuple[Price, Price] | None
    cost: CostLimit
    stats: dict[Key, RolloutStats] = field(default_factory=dict)
    baselines: list[Baseline] = field(default_factory=list)
    spent: float = 0.0
    """US dollars, by this run alone."""

    def write_config(self) -> None:
        """Replaces config.toml: what was asked for, and the record."""
        self.folder.write_config({**self.config.as_toml(), RECORD: self.record})

    def load_stored(self) -> None:
        """Takes in the rollouts and baselines that are on disk."""
        for rollout in self.folder.rollouts():
            self._count(stats_of(rollout, self.prices))
        stored = read_summary(self.config.out) if self.stats else {}
        if stored.get("baselines_over") == len(self.tasks):
            self.baselines = stored_baselines(stored)

    def _count(self, stats: RolloutStats) -> None:
        self.stats[stats.key] = stats
        self.spent += stats.cost or 0.0
        self.cost.spent += stats.cost or 0.0

    def planned(self) -> list[PlannedRollout]:
        """The rollouts left to do: all tasks once before any is repeated, a task's scaffolds side by side."""
        wanted = [
            (scaffold, task, repeat)
            for repeat in range(self.config.repeats)
            for task in self.tasks
            for scaffold in self.scaffolds.values()
        ]
        done = {key for key, stats in self.stats.items() if stats.outcome is not Outcome.ERROR}
        return [one for one in wanted if (one[0].name, one[1].id, one[2]) not in done]

    async def finish(self, engines: OpenEngines) -> EvalResult:
        """Does the rest of the run. Engines are opened only if there is a rest; summary.json says how it ended."""
        status = "failed"
        try:
            if (planned := self.planned()) and not self.cost.reached:
                async with engines() as opened:
                    await self._record_engines(opened)
                    await self._work(planned, opened)
            status = "stopped by max-cost" if self.cost.reached and self.planned() else "complete"
            if not self.baselines:
                with self.console.status("measuring the baselines"):
                    self.baselines = await measure_baselines(self.environment, self.tasks, self.config.seed)
        except RunStopped as stop:
            status = stop.status
            raise
        except asyncio.CancelledError:
            status = "interrupted"
            raise
        finally:
            with contextlib.suppress(RunStopped):  # the reason that is being raised already says more
                self.folder.write_summary(self.to_summary(status))
                self.folder.write_results(stats.result() for stats in self.stats.values())
        label = self.config.environments[0].label
        return EvalResult(self.config.out, status, label, self.summarize(), self.title)

    async def _record_engines(self, engines: Engines) -> None:
        """Records the engines and their versions; warns if a resumed run began with others."""
        described = await describe_engines({"root": engines.root, "sub": engines.sub})
        for warning in engine_changes(self.record.get("engines", {}), described):
            self.console.print(f"note: {warning}", markup=False, style="yellow")
        self.record["engines"] = described
        self.write_config()

    async def _work(self, planned: list[PlannedRollout], engines: Engines) -> None:
        repeats = len(self.tasks) * self.config.repeats
        with Progress(self.console, list(self.scaffolds), repeats) as progress:
            redo = {(scaffold.name, task.id, repeat) for scaffold, task, repeat in planned}
            for key, stats in self.stats.items():
                if key not in redo and stats.scaffold in self.scaffolds:
                    progress.add(stats, old=True)
            left = iter(planned)
            workers = [
                asyncio.create_task(self._worker(left, engines, progress))
                for _ in range(min(self.config.concurrency, len(planned)))
            ]
            helpers = [asyncio.create_task(self._keep_summary()), asyncio.create_task(engines.watch())]
            try:
                pending = set(workers)
                while pending:
                    done, _ = await asyncio.wait({*pending, *helpers}, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                    pending -= done
            except EngineUnavailable as error:
                log = "".join(f"\nIts log: {path}" for path in engines.logs)
                raise RunStopped(
                    "engine unavailable", f"the engine does not answer any more: {error}{log}", 3
                ) from error
            finally:
                for task in (*workers, *helpers):
                    task.cancel()
                await asyncio.gather(*workers, *helpers, return_exceptions=True)

    async def _worker(self, left: Iterator[PlannedRollout], engines: Engines, progress: Progress) -> None:
        for scaffold, task, repeat in left:
            if self.cost.reached:
                return
            rollout = await self._one(scaffold, task, repeat, engines)
            self.folder.append(rollout)
            stats = stats_of(rollout, self.prices)
            self._count(stats)
            progress.add(stats)

    async def _one(self, scaffold: Scaffold, task: Task, repeat: int, engines: Engines) -> Rollout:
        """One scored rollout. A defect in a scaffold or a scorer fails this rollout, not the run."""
        rollout = Rollout(
            id=f"{scaffold.name}/{task.id}/{repeat}", task_id=task.id, scaffold=scaffold.name, info={"task": task.info}
        )
        try:
            rollout = await scaffold.rollout(task, engines.root, engines.sub, id=rollout.id)
            if rollout.stop_reason not in (StopReason.ERROR, StopReason.CANCELLED):
                rollout.score = await score_rollout(self.environment, task, rollout)
        except EngineUnavailable:
            raise
        except Exception as error:
            rollout.stop_reason, rollout.score = StopReason.ERROR, None
            rollout.error = f"{type(error).__name__}: {error}"
            rollout.info["traceback"] = traceback.format_exc()
        rollout.info["repeat"] = repeat
        return rollout

    async def _keep_summary(self) -> None:
        while True:
            await asyncio.sleep(SUMMARY_SECONDS)
            self.folder.write_summary(await asyncio.to_thread(self.to_summary, "running", dict(self.stats)))

    @property
    def title(self) -> str:
        return run_title(self.config, len(self.tasks))

    def summarize(self, stats: dict[Key, RolloutStats] | None = None) -> EvalSummary:
        """The numbers so far, or those of `stats`."""
        stats = self.stats if stats is None else stats
        differences = setting_differences({name: scaffold.describe() for name, scaffold in self.scaffolds.items()})
        return summarize(stats.values(), self.config.scaffolds, self.config.seed, self.baselines, differences)

    def to_summary(self, status: str, stats: dict[Key, RolloutStats] | None = None) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "status": status,
            "title": self.title,
            "rollouts_planned": len(self.tasks) * self.config.repeats * len(self.scaffolds),
            "rollouts_stored": len(self.stats if stats is None else stats),
            "spent_usd": self.spent if self.prices else None,
            "baselines_over": len(self.tasks) if self.baselines else 0,
            **self.summarize(stats).to_dict(),
        }


def stored_eval(path: Path) -> EvalResult:
    """The result of a run on disk, as far as it went. Raises ConfigError if the folder holds none."""
    stored = read_run_config(path)
    record = stored.pop(RECORD)
    try:
        config = EvalRunConfig.model_validate(stored)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, EvalRunConfig, f"{path / CONFIG}")) from error
    prices = price_pair(config)
    stats = {one.key: one for one in (stats_of(rollout, prices) for rollout in read_rollouts(path / ROLLOUTS))}
    baselines = stored_baselines(read_summary(path))
    differences = setting_differences(record["scaffolds"])
    summary = summarize(stats.values(), config.scaffolds, config.seed, baselines, differences)
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
    sub = f", sub-LLM {config.sub_model}" if config.sub_model else ""
    repeats = f" x {config.repeats} rollouts" if config.repeats > 1 else ""
    return f"{config.environment}, {config.model}{sub}: {tasks} tasks{repeats}"
