"""Runs an eval on one environment: the same tasks and repeats in every scaffold, stored as they finish, resumable.

Covered: the order of work, bounded concurrency, what stops a run. Not covered: what is made before (`setup.py`),
engines (`engines.py`), numbers (`summary.py`), several environments (`matrix.py`), scoring (`rlm_env/scoring/`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from rlm_env.environment import Environment, environment_name
from rlm_env.evals.baselines import Baseline, baseline_notes, has_failed_baselines, measure_in_folder
from rlm_env.evals.config import EvalRunConfig, check_eval_resume
from rlm_env.evals.fairness import setting_differences
from rlm_env.evals.grading import grade, is_scorable, judge_stop, try_scorer
from rlm_env.evals.guard import Guard
from rlm_env.evals.hooks import NO_HOOKS, Hooks
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.plan import PlannedRollout, make_rollout, plan
from rlm_env.evals.progress import Progress, counting
from rlm_env.evals.rescoring import rescore, scoring_name
from rlm_env.evals.rollout_stats import Key, RolloutStats, stats_of
from rlm_env.evals.setup import (
    RolePrices,
    environment_of,
    judge_of_options,
    load_tasks,
    make_scaffolds,
    price_notes,
    role_prices,
)
from rlm_env.evals.spending import Spending
from rlm_env.evals.stored import EvalResult, holds_pilot, run_title, stored_baselines
from rlm_env.evals.summary import EvalSummary, summarize
from rlm_env.evals.until import Stopping, UntilTest, measured_tasks, until_test
from rlm_env.llm.base import LLM, EngineUnavailable
from rlm_env.messages import Usage
from rlm_env.origin import origin_of
from rlm_env.registry import takes_option
from rlm_env.repl import ReplPools
from rlm_env.rollout import Rollout
from rlm_env.runs.config import RECORD
from rlm_env.runs.console import say_note
from rlm_env.runs.engine_table import Role, by_role
from rlm_env.runs.engines import EnginePool, Engines, ask_each, engine_stop
from rlm_env.runs.errors import RunStopped
from rlm_env.runs.folder import RunFolder, read_run_config, read_summary, refuse_foreign
from rlm_env.runs.judge import CountedJudge
from rlm_env.runs.models import ModelRef, resolve_engines
from rlm_env.runs.prices import CostLimit, total_cost
from rlm_env.runs.record import (
    adaptation_notes,
    check_record,
    make_record,
    record_adaptations,
    record_engines,
    take_record,
)
from rlm_env.scaffolds import Scaffold
from rlm_env.task import Task

SUMMARY_SECONDS = 5.0
"""summary.json is updated this often during a run."""


async def run_eval(
    config: EvalRunConfig, console: Console, *, resume: bool = False, hooks: Hooks = NO_HOOKS
) -> EvalResult:
    """Runs `config` into its output folder, or the rest of it.

    Raises ConfigError before anything is started, RunStopped when the engine or the disk gives up, CancelledError
    when it is interrupted; rollouts that had finished by then are on disk.
    """
    entries = by_role(config.engine_entries())
    models = resolve_engines(entries)
    cost = CostLimit(config.max_cost)
    async with (
        ReplPools() as pools,
        EnginePool(entries, models, config.out, console, config.seed) as engines,
        prepare_run(config, models, console, cost, pools, engines, resume=resume, hooks=hooks) as run,
    ):
        return await run.finish()


@contextlib.asynccontextmanager
async def prepare_run(
    config: EvalRunConfig,
    models: dict[Role, ModelRef],
    console: Console,
    cost: CostLimit,
    pools: ReplPools,
    engines: EnginePool,
    *,
    resume: bool,
    hooks: Hooks = NO_HOOKS,
) -> AsyncIterator[EvalRun]:
    """A run with all that it needs, and with what is stored of it; engines are not started yet, but for a judge that
    is tried. Raises ConfigError and RunStopped."""
    prices = role_prices(config, config.options)
    refuse_foreign(config.out)
    of_pilot = holds_pilot(config.out)
    resume = resume or of_pilot
    judge = engines.judge or judge_of_options(config)
    given = hooks.environments.get(config.environment)
    environment = given or environment_of(config, models["root"], judge)
    if engines.judge is not None and (given is not None or not takes_option(config.environment, "judge")):
        say_note(console, f"{config.environment} has no option judge; it asks none")
    with console.status(f"making the tasks of {config.environment}"):
        tasks = load_tasks(config, environment)
    if len(tasks) < config.n:
        say_note(console, f"the split '{config.split}' has {len(tasks)} tasks only")
    async with make_scaffolds(config, environment, models["root"], pools) as scaffolds:
        origin = None if given else origin_of(config.environment)
        record = make_record(tasks, scaffolds, models, environment_name(environment), origin)
        if hooks.pilot:
            record["pilot"] = True
        with RunFolder(config.out, resume=resume) as folder:
            if resume:
                old = read_run_config(config.out)
                check_eval_resume(old, config, config.out, pilot=of_pilot)
                old_record = take_record(old, config.out)
                for warning in check_record(old_record, record, tasks, config.out):
                    say_note(console, warning)
                record |= {key: old_record[key] for key in ("started", "engines") if key in old_record}
            spent = Spending(cost)
            run = EvalRun(
                config, record, environment, tasks, scaffolds, folder, console, prices, spent, engines, hooks, judge
            )
            run.load_stored()
            await run.try_scorer()
            run.write_config()
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
    prices: RolePrices | None
    spending: Spending
    pool: EnginePool
    hooks: Hooks
    judge: CountedJudge | None
    stats: dict[Key, RolloutStats] = field(default_factory=dict)
    baselines: list[Baseline] = field(default_factory=list)
    baselines_complete: bool = False
    """They were measured on all tasks."""
    guard: Guard = field(default_factory=Guard)
    test: UntilTest = field(init=False)
    """The test that ends the run once it has decided."""
    waiting: set[Key] = field(default_factory=set)
    """Rollouts that are to be made, some of them again."""

    def __post_init__(self) -> None:
        self.test = until_test(self.config, self.tasks)

    def write_config(self) -> None:
        """Replaces config.toml: what was asked for, and the record."""
        self.folder.write_config({**self.config.as_toml(), RECORD: self.record})

    def load_stored(self) -> None:
        """Takes in the rollouts and baselines that are on disk."""
        for rollout in self.folder.rollouts():
            self._count(stats_of(rollout, self.prices and self.prices.pair))
        self.test = until_test(self.config, self.tasks)
        self.test.advance(self.stats)
        stored = read_summary(self.config.out) if self.stats else {}
        for purpose, cost in stored.get("side_costs_usd", {}).items() if not self.spending.sides else ():
            self.spending.add_side(purpose, cost)
        measured = len(measured_tasks(self.test, self.tasks, self.stats))
        if stored.get("baselines_over") == measured:
            self.baselines = stored_baselines(stored)
            self.baselines_complete = not has_failed_baselines(self.config, self.environment, measured)

    def _count(self, stats: RolloutStats) -> None:
        """Adds a stored rollout to the numbers and to what was spent."""
        self.stats[stats.key] = stats
        if self.prices is not None:
            self.spending.add_rollout(stats.cost)

    def planned(self) -> list[PlannedRollout]:
        """The rollouts left to do, in their order."""
        wanted = plan(self.tasks, self.scaffolds.values(), self.config.repeats, self.test)
        done = {key for key, stats in self.stats.items() if stats.outcome is not Outcome.ERROR or stats.unscored}
        return [one for one in wanted if (one[0].name, one[1].id, one[2]) not in done]

    @property
    def unscored(self) -> int:
        """Number of stored rollouts that have an answer and no score."""
        return sum(stats.unscored for stats in self.stats.values())

    async def try_scorer(self) -> None:
        """Finds a scorer or a judge that fails before anything is paid. Raises ConfigError and RunStopped."""
        if not self.unscored and not self.planned():
            return
        with self.console.status("trying the scorer"):
            warning = await try_scorer(self.environment, self.tasks[0])
        self._count_judge()
        if warning:
            say_note(self.console, warning)

    async def finish(self) -> EvalResult:
        """Does the rest of the run. Engines are started only if there is a rest; summary.json says how it ended."""
        status = "failed"
        try:
            if self.unscored:
                await self._score_stored()
            if (planned := self.planned()) and not self.spending.limit.reached:
                engines = await self.pool.engines()
                await self._record_engines(engines)
                await self._preflight(engines)
                try:
                    await self._work(planned, engines)
                finally:
                    await self._record_adaptations(engines)
            done = "pilot" if self.hooks.pilot else "complete"
            status = "stopped by max-cost" if self.spending.limit.reached and self.planned() else done
            if self.test.decided:
                status = "decided"
                self.record["stopping"] = self.test.record()
                self.write_config()
            await self._measure_baselines()
        except RunStopped as stop:
            status = stop.status
            raise
        except asyncio.CancelledError:
            status = "interrupted"
            raise
        finally:
            self._count_judge()
            with contextlib.suppress(RunStopped):  # the reason that is being raised already says more
                self.write_results(status)
        label = self.config.environments[0].label
        return EvalResult(self.config.out, status, label, self.summarize(), self.title)

    def write_results(self, status: str) -> None:
        """Replaces summary.json and results.jsonl."""
        self.folder.write_summary(self.to_summary(status))
        self.folder.write_results(stats.result() for stats in self.stats.values())

    def _count_judge(self) -> None:
        """Counts what the judge has cost since the last call."""
        if self.judge is not None and self.prices is not None and self.prices.judge is not None:
            self.spending.add_side("judge", self.prices.judge.of(self.judge.take_usage()))

    async def _preflight(self, engines: Engines) -> None:
        """Asks every engine one small question. Raises RunStopped if one refuses."""
        config = next(iter(self.scaffolds.values())).config
        with self.console.status("asking each endpoint one small question"):
            usage = await ask_each(engines, {"root": config.root, "sub": config.sub})
        if self.prices is not None:
            root, sub = usage.get("root", Usage()), usage.get("sub", Usage())
            self.spending.add_side("preflight", total_cost(self.prices.root.of(root), self.prices.sub.of(sub)))

    async def _score_stored(self) -> None:
        """Scores the stored rollouts whose scorer or judge failed."""
        with counting(self.console, "scoring stored rollouts") as report:
            await rescore(
                self.folder,
                self.environment,
                self.tasks,
                scoring_name(self.environment, self.config.options),
                everything=False,
                concurrency=self.config.concurrency,
                report=report,
            )
        self.spending.forget_rollouts()
        self.stats = {}
        self.load_stored()

    async def _measure_baselines(self) -> None:
        """Measures the baselines, or the rest of them, as far as the config's limit of time allows."""
        if not self.config.baselines or self.baselines_complete:
            return
        self.baselines, self.baselines_complete = await measure_in_folder(
            self.config, self.environment, measured_tasks(self.test, self.tasks, self.stats), self.console
        )

    async def _record_engines(self, engines: Engines) -> None:
        """Records the engines and their versions; warns if a resumed run began with others."""
        for warning in await record_engines(self.record, {"root": engines.root, "sub": engines.sub}):
            say_note(self.console, warning)
        self.write_config()

    async def _record_adaptations(self, engines: Engines) -> None:
        """Records what was sent otherwise than asked for, because an endpoint refused it."""
        llms: dict[str, LLM] = {"root": engines.root, "sub": engines.sub}
        if self.judge is not None and self.judge.asked:
            llms["judge"] = self.judge
        await record_adaptations(self.record, llms)
        self.write_config()

    async def _work(self, planned: list[PlannedRollout], engines: Engines) -> None:
        """Samples and scores the planned rollouts, `concurrency` at once, until none is left or the run is stopped."""
        repeats = len(self.tasks) * self.config.repeats
        with Progress(self.console, list(self.scaffolds), repeats, lambda: self.test.told) as progress:
            self.waiting = {(scaffold.name, task.id, repeat) for scaffold, task, repeat in planned}
            if not self.test.decided:
                self.test = until_test(self.config, self.tasks)
                self.test.advance(self.stats, self.waiting)
            for key, stats in self.stats.items():
                if key not in self.waiting and stats.scaffold in self.scaffolds:
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
                raise engine_stop(error, engines) from error
            finally:
                for task in (*workers, *helpers):
                    task.cancel()
                await asyncio.gather(*workers, *helpers, return_exceptions=True)

    async def _worker(self, left: Iterator[PlannedRollout], engines: Engines, progress: Progress) -> None:
        decided = self.test.decided  # then what is left are scaffolds that the test does not compare
        for planned in left:
            await self.test.turn(planned[1].id, self.config.concurrency, lambda: self.spending.limit.reached)
            if self.spending.limit.reached or (self.test.decided and not decided):
                self.test.wake()
                return
            rollout, task = await make_rollout(planned, engines, self.hooks.on_event), planned[1]
            error = None
            try:
                if is_scorable(rollout):
                    error = await grade(self.environment, task, rollout)
            finally:  # a rollout that is paid is kept, also when its scoring is interrupted
                stats = self._store(rollout)
                self._count_judge()
            progress.add(stats)
            self.hooks.ended(rollout)
            self.guard.add(stats)
            if isinstance(error, EngineUnavailable):
                raise judge_stop(error)

    def _store(self, rollout: Rollout) -> RolloutStats:
        """Adds a rollout to the folder."""
        stats = stats_of(self.folder.append(rollout), self.prices and self.prices.pair)
        self._count(stats)
        self.waiting.discard(stats.key)
        self.test.advance(self.stats, self.waiting)
        return stats

    async def _keep_summary(self) -> None:
        while True:
            await asyncio.sleep(SUMMARY_SECONDS)
            stopping = self.test.stopping(self.stats)  # what the thread reads must not change meanwhile
            summary = await asyncio.to_thread(self.to_summary, "running", dict(self.stats), stopping)
            self.folder.write_summary(summary)

    @property
    def title(self) -> str:
        return run_title(self.config, len(self.tasks))

    def summarize(self, stats: dict[Key, RolloutStats] | None = None, stopping: Stopping | None = None) -> EvalSummary:
        """The numbers so far, or those of `stats` and the test's state `stopping`."""
        stats, stopping = (self.stats, self.test.stopping(self.stats)) if stats is None else (stats, stopping)
        differences = setting_differences({name: scaffold.describe() for name, scaffold in self.scaffolds.items()})
        notes = price_notes(self.config) + adaptation_notes(self.record.get("engines", {}))
        complete = self.baselines_complete
        notes += baseline_notes(self.config, self.environment, self.baselines, complete=complete)
        scaffolds, seed = self.config.scaffolds, self.config.seed
        return summarize(stats.values(), scaffolds, seed, self.baselines, differences, notes, stopping)

    def to_summary(
        self, status: str, stats: dict[Key, RolloutStats] | None = None, stopping: Stopping | None = None
    ) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "status": status,
            "title": self.title,
            "rollouts_planned": len(self.tasks) * self.config.repeats * len(self.scaffolds),
            "rollouts_stored": len(self.stats if stats is None else stats),
            "spent_usd": self.spending.total if self.prices else None,
            "side_costs_usd": self.spending.sides,
            "baselines_over": len(measured_tasks(self.test, self.tasks, self.stats)) if self.baselines_complete else 0,
            **self.summarize(stats, stopping).to_dict(),
        }
