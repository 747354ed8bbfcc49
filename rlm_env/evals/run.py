"""Runs an eval: the same tasks and repeats in every scaffold, stored as they finish, resumable at any point.

Covered: the order of work, bounded concurrency, scoring, what stops a run. Not covered: what is made before
(`setup.py`), engines (`engines.py`), files (`store.py`), numbers (`summary.py`), several environments (`matrix.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.environment import Environment, environment_name
from rlm_env.evals.baselines import Baseline, measure_baselines
from rlm_env.evals.config import EvalConfig, check_resume
from rlm_env.evals.engines import Engines, api_key, open_engines
from rlm_env.evals.fairness import setting_differences
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.prices import Price
from rlm_env.evals.progress import Progress
from rlm_env.evals.rollout_stats import Key, RolloutStats, stats_of
from rlm_env.evals.setup import load_tasks, make_environment, make_scaffolds, price_pair
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import Summary, summarize
from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import Rollout, StopReason, read_rollouts
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import RunStopped
from rlm_env.runs.folder import ROLLOUTS, RunFolder, read_config, read_summary
from rlm_env.runs.models import ModelRef, resolve_models
from rlm_env.runs.record import check_record, make_record
from rlm_env.scaffolds import Scaffold
from rlm_env.scoring import score_rollout
from rlm_env.task import Task

SUMMARY_SECONDS = 5.0
"""summary.json is brought up to date this often while a run goes on."""

Job = tuple[Scaffold, Task, int]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: `status` is `complete` or `stopped by max-cost`."""

    path: Path
    status: str
    summary: Summary
    title: str


def resume_command(out: Path) -> str:
    """The command that goes on with the run in this folder."""
    return f"rlm-env eval {shlex.quote(str(out / 'config.toml'))} --resume"


@dataclass(slots=True)
class Purse:
    """What may be spent, by one run or by several together."""

    limit: float | None = None
    spent: float = 0.0
    """US dollars, of rollouts that failed and were repeated too."""

    @property
    def empty(self) -> bool:
        return self.limit is not None and self.spent >= self.limit


OpenEngines = Callable[[], AbstractAsyncContextManager[Engines]]


async def run_eval(config: EvalConfig, console: Console, *, resume: bool = False) -> Result:
    """Runs what `config` describes into its output folder, or what is left of it.

    Raises ConfigError before anything is started, RunStopped when the engine or the disk gives up (what had
    finished is on disk), CancelledError when it is interrupted (likewise).
    """
    models = resolve_models(config)
    async with prepare(config, models, console, Purse(config.max_cost), resume=resume) as run:
        return await run.finish(lambda: open_engines(config, models, config.out, console))


@contextlib.asynccontextmanager
async def prepare(
    config: EvalConfig, models: dict[str, ModelRef], console: Console, purse: Purse, *, resume: bool
) -> AsyncIterator[Run]:
    """A run with all that it needs but engines; what is stored of it is taken in. Raises ConfigError."""
    prices = price_pair(config)
    api_key(config)  # a missing one is found before anything is made
    environment = make_environment(config, models["root"])
    with console.status(f"making the tasks of {config.environment}"):
        tasks = load_tasks(config, environment)
    if len(tasks) < config.n:
        console.print(f"note: the split '{config.split}' has {len(tasks)} tasks only", markup=False, style="yellow")
    async with make_scaffolds(config, environment, models["root"]) as scaffolds:
        record = make_record(tasks, scaffolds, models, environment_name(environment))
        with RunFolder(config.out, resume=resume) as folder:
            if resume:
                old = read_config(config.out)
                old_record = old.pop(RECORD, {})
                check_resume(old, config, config.out)
                for warning in check_record(old_record, record, tasks, config.out):
                    console.print(f"note: {warning}", markup=False, style="yellow")
                record["started"] = old_record["started"]
            folder.write_config({**config.as_toml(), RECORD: record})
            run = Run(config, environment, tasks, scaffolds, folder, console, prices, purse)
            run.load_stored()
            yield run


@dataclass(slots=True)
class Run:
    """A run that is going on."""

    config: EvalConfig
    environment: Environment
    tasks: list[Task]
    scaffolds: dict[str, Scaffold]
    folder: RunFolder
    console: Console
    prices: tuple[Price, Price] | None
    purse: Purse
    rows: dict[Key, RolloutStats] = field(default_factory=dict)
    baselines: list[Baseline] = field(default_factory=list)
    spent: float = 0.0
    """US dollars, by this run alone."""

    def load_stored(self) -> None:
        """Takes in what is on disk."""
        for rollout in self.folder.rollouts():
            self._count(stats_of(rollout, self.prices))
        stored = read_summary(self.config.out) if self.rows else {}
        if stored.get("baselines_over") == len(self.tasks):
            self.baselines = stored_baselines(stored)

    def _count(self, row: RolloutStats) -> None:
        self.rows[row.key] = row
        self.spent += row.cost or 0.0
        self.purse.spent += row.cost or 0.0

    def jobs(self) -> list[Job]:
        """What is left to do: all tasks once before any is repeated, a task's scaffolds side by side."""
        wanted = [
            (scaffold, task, repeat)
            for repeat in range(self.config.repeats)
            for task in self.tasks
            for scaffold in self.scaffolds.values()
        ]
        done = {key for key, row in self.rows.items() if row.outcome is not Outcome.ERROR}
        return [job for job in wanted if (job[0].name, job[1].id, job[2]) not in done]

    async def finish(self, engines: OpenEngines) -> Result:
        """Does what is left, on engines that are opened only for that, and keeps summary.json true to how it ended."""
        status = "failed"
        try:
            if (jobs := self.jobs()) and not self.purse.empty:
                async with engines() as opened:
                    await self._work(jobs, opened)
            status = "stopped by max-cost" if self.purse.empty and self.jobs() else "complete"
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
                self.folder.write_results(row.result() for row in self.rows.values())
        return Result(self.config.out, status, self.summarize(), self.title)

    async def _work(self, jobs: list[Job], engines: Engines) -> None:
        repeats = len(self.tasks) * self.config.repeats
        with Progress(self.console, list(self.scaffolds), repeats) as progress:
            redo = {(scaffold.name, task.id, repeat) for scaffold, task, repeat in jobs}
            for key, row in self.rows.items():
                if key not in redo and row.scaffold in self.scaffolds:
                    progress.add(row, old=True)
            left = iter(jobs)
            workers = [
                asyncio.create_task(self._worker(left, engines, progress))
                for _ in range(min(self.config.concurrency, len(jobs)))
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

    async def _worker(self, left: Iterator[Job], engines: Engines, progress: Progress) -> None:
        for scaffold, task, repeat in left:
            if self.purse.empty:
                return
            rollout = await self._one(scaffold, task, repeat, engines)
            self.folder.append(rollout)
            row = stats_of(rollout, self.prices)
            self._count(row)
            progress.add(row)

    async def _one(self, scaffold: Scaffold, task: Task, repeat: int, engines: Engines) -> Rollout:
        """One rollout with its score. A defect of a scaffold or a scorer costs this rollout, not the run."""
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
            self.folder.write_summary(await asyncio.to_thread(self.to_summary, "running", dict(self.rows)))

    @property
    def title(self) -> str:
        return run_title(self.config, len(self.tasks))

    def summarize(self, rows: dict[Key, RolloutStats] | None = None) -> Summary:
        """The numbers so far."""
        rows = self.rows if rows is None else rows
        differences = setting_differences({name: scaffold.describe() for name, scaffold in self.scaffolds.items()})
        return summarize(rows.values(), self.config.scaffolds, self.config.seed, self.baselines, differences)

    def to_summary(self, status: str, rows: dict[Key, RolloutStats] | None = None) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "status": status,
            "title": self.title,
            "rollouts_planned": len(self.tasks) * self.config.repeats * len(self.scaffolds),
            "rollouts_stored": len(self.rows if rows is None else rows),
            "spent_usd": self.spent if self.prices else None,
            "baselines_over": len(self.tasks) if self.baselines else 0,
            **self.summarize(rows).to_dict(),
        }


def stored_summary(path: Path) -> tuple[Summary, str]:
    """The summary of a run on disk, and its title. Raises ConfigError where the folder holds none."""
    stored = read_config(path)
    record = stored.pop(RECORD)
    config = EvalConfig.model_validate(stored)
    prices = price_pair(config)
    rows = {row.key: row for row in (stats_of(rollout, prices) for rollout in read_rollouts(path / ROLLOUTS))}
    baselines = stored_baselines(read_summary(path))
    summary = summarize(
        rows.values(), config.scaffolds, config.seed, baselines, setting_differences(record["scaffolds"])
    )
    return summary, run_title(config, record["tasks"])


def stored_baselines(summary: dict[str, Any]) -> list[Baseline]:
    """The baselines that a summary.json holds."""
    return [Baseline(f["name"], f["score"] and Estimate(**f["score"])) for f in summary.get("baselines", ())]


def run_title(config: EvalConfig, tasks: int) -> str:
    """One line that says what was run."""
    sub = f", sub-LLM {config.sub_model}" if config.sub_model else ""
    repeats = f" x {config.repeats} rollouts" if config.repeats > 1 else ""
    return f"{config.environment}, {config.model}{sub}: {tasks} tasks{repeats}"
