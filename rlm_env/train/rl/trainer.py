"""A training run from its config to the trained model: sample, score, update, bring the weights back, and again.

Owns the order of events and what is on disk after each of them, so that a run that is killed anywhere goes on with
nothing trained twice and nothing lost. There are live runs on an engine and runs from saved samples. The command line
is in `cli/train.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.llm.base import EngineUnavailable
from rlm_env.origin import origin_of
from rlm_env.repl import ReplPools
from rlm_env.runs.console import say, say_note, stage
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import interruptible, to_its_end
from rlm_env.runs.models import resolve_folder
from rlm_env.runs.record import describe_engines, describe_package
from rlm_env.train.learner import distributed
from rlm_env.train.learner.config import ModelError
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.model import pick_device
from rlm_env.train.learner.packing_check import PackingError
from rlm_env.train.learner.sample_files import read_samples, sample_files, write_samples
from rlm_env.train.learner.samples import Sample
from rlm_env.train.rl.batch_metrics import batch_metrics
from rlm_env.train.rl.config import TrainConfig, check_train_resume
from rlm_env.train.rl.engines import JudgeSeat, open_fleet
from rlm_env.train.rl.environment_mix import NO_JUDGED, EnvironmentMix, any_judged
from rlm_env.train.rl.evaluations import Evaluations
from rlm_env.train.rl.held_out import HeldOut
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.preflight import check_model, check_samples_fit, check_template, check_window
from rlm_env.train.rl.scheduler import Scheduler
from rlm_env.train.rl.shown_rollouts import rollout_rows
from rlm_env.train.rl.supervised import SupervisedShare, supervised_share
from rlm_env.train.rl.teacher import Teacher, check_teacher, open_teacher
from rlm_env.train.run_files import MODEL, WEIGHTS
from rlm_env.train.run_folder import ENGINE_EVENTS, OpenRun, check_run_folder, open_run
from rlm_env.train.sync.config import METHODS_OF_VLLM
from rlm_env.train.sync.engine_watch import EngineWatch
from rlm_env.train.sync.fleet import Fleet
from rlm_env.train.sync.fleet_sync import FleetSync
from rlm_env.train.sync.sync_check import SyncError
from rlm_env.train.sync.weight_sync import NOT_RUN

ALL_EQUAL = 3
"""After this many steps in a row without an advantage in any group, a run says so."""
NOTHING_LEARNED = (
    "in the last {} steps all rollouts of every task had the same reward (mean {:.3f}), so nothing was learned from "
    "them. Look at rollouts.jsonl: the tasks may be too hard or too easy for this model, or the scorer too coarse"
)

NO_BASELINE = "the initial weights were not evaluated before the first step: there is no score from before the training"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of the command that are not part of the config."""

    resume: bool = False
    dump_samples: Path | None = None
    """Folder for the samples of every step."""
    from_samples: Path | None = None
    """Train on the samples in this folder, without an engine."""


def train(config: TrainConfig, console: Console, options: TrainOptions | None = None) -> Path | None:
    """Runs `config`, or what is left of it on resume; returns the trained model's folder.

    Under torchrun every process calls this, and all but the first return None. Raises ConfigError before anything is
    changed; RunStopped where engine, disk or rollouts fail for good; KeyboardInterrupt. A stopped run can be resumed.
    """
    options = options or TrainOptions()
    if options.from_samples is not None and options.dump_samples is not None:
        raise ConfigError("--dump-samples has no effect with --from-samples, whose samples are on disk already")
    check_run_folder(config, resume=options.resume)
    model = resolve_folder(config.model)
    check_model(config, model, live=options.from_samples is None)
    if options.from_samples is None:
        check_teacher(config.teacher, model)
    device = pick_device(config.trainer, distributed.local_rank())
    with distributed.process_group(device):
        leads = distributed.rank() == 0
        mix = None
        supervised = supervised_share(config, model) if leads else None
        pools = ReplPools()
        seat = JudgeSeat(config)
        if leads and options.from_samples is None:
            mix = EnvironmentMix(config, model, pools, seat.judge)
            if seat.judge is not None and not any_judged(config):
                say_note(console, NO_JUDGED)
            if not check_template(model, config):
                say_note(console, "the chat template rewrites earlier turns; each turn becomes a sample of its own")
        try:
            with stage(console, f"loading {config.model}") if leads else contextlib.nullcontext():
                learner = Learner(model, config.trainer, config.optimizer, config.loss, config.steps, config.seed)
        except (ModelError, PackingError) as error:
            raise ConfigError(str(error)) from error
        if not leads:
            distributed.follow(learner)
            return None
        with (
            distributed.leading(learner) as led,
            open_run(
                *(config, led, console, check_train_resume),
                resume=options.resume,
                fixed_inputs={} if supervised is None else {"supervised": ("supervised rollouts", supervised.sha256)},
            ) as opened,
        ):
            if supervised is not None:
                say_note(console, f"supervised share: {supervised.describe()}")
            run = _Run(opened, options, led, supervised)
            if options.from_samples is not None:
                asyncio.run(interruptible(run.from_samples(options.from_samples)))
            elif mix is not None:
                asyncio.run(interruptible(run.live(mix, pools, model, seat)))
        return config.out / MODEL


@dataclass(slots=True)
class _Run:
    """A run in progress."""

    opened: OpenRun[TrainConfig]
    options: TrainOptions
    learner: Learner
    supervised: SupervisedShare | None = None
    """The supervised samples of each step."""
    saved: int = -1
    """Step of the newest checkpoint."""
    recorded: int = field(init=False)
    """Steps whose metrics are written. Only these get a checkpoint."""
    equal: int = 0
    """Steps in a row, up to the newest, in which no group had an advantage."""
    publishing: asyncio.Task[dict[str, float]] | None = None
    """Brings the newest weights into the engine while the next batch is trained."""
    evaluations: Evaluations = field(init=False)
    """Of a live run."""
    teacher: Teacher | None = None
    """Of a live run with `[teacher]`."""

    def __post_init__(self) -> None:
        self.recorded = self.learner.version

    @property
    def config(self) -> TrainConfig:
        return self.opened.config

    @property
    def console(self) -> Console:
        return self.opened.console

    async def from_samples(self, source: Path) -> None:
        """Trains one step on each file of samples."""
        files = sample_files(source)[: self.config.steps]
        self.opened.begin(self.learner, len(files))
        async with self._saving():
            for path in files[self.learner.version :]:
                start = time.monotonic()
                samples = read_samples(path)
                check_samples_fit(samples, self.config, str(path))
                try:
                    values = await self._update(samples)
                except ValueError as error:
                    raise ConfigError(f"{path}: {error}") from error
                values["seconds/step"] = time.monotonic() - start
                await self._record(self.learner.version, len(files), values)
        await self._finish()

    async def live(self, mix: EnvironmentMix, pools: ReplPools, model: Path, judge: JudgeSeat) -> None:
        """Makes rollouts and updates side by side, up to the last step."""
        self.opened.begin(self.learner, self.config.steps)
        try:
            async with pools, contextlib.aclosing(mix), self._engines(model) as engines, self._taught(model, engines):
                judge.open(engines.judge)
                await self._live(mix, engines)
        except (EngineUnavailable, SyncError) as error:
            status = "weights not in the engine" if isinstance(error, SyncError) else "engine unavailable"
            raise RunStopped(status, str(error), 3) from error

    async def _live(self, mix: EnvironmentMix, engines: Fleet) -> None:
        """The loop of a live run: evaluate where due, step, to the last step."""
        config = self.config
        check_window(config, max(engines.windows, default=None))
        packages = {entry.label: describe_package(origin_of(entry.name)) for entry in config.environments}
        described = engines.described if config.engines else {"policy": engines.llm}
        self.opened.add_to_record(engines=await describe_engines(described), packages=packages)
        sync = FleetSync(config.sync, config.out / WEIGHTS, config.trainer.dtype)
        if config.sync.method in METHODS_OF_VLLM:
            say_note(self.console, NOT_RUN.format(config.sync.method))
        with stage(self.console, "bringing the weights into the engine and comparing it with the trainer"):
            found = await sync.start(self.learner, engines)
        agreement = f"mean |difference| of log-probabilities {found['sync_mean_abs']:.1e}"
        say(self.console, f"engine and trainer agree: {agreement}")
        if config.held_out.n and self.learner.version and not self.opened.metrics.evaluated(0):
            say_note(self.console, NO_BASELINE)
        watch = EngineWatch(*(partial(engines.statistics, engine) for engine in engines.followed))
        with HeldOut(config, mix, engines, config.out) as held_out, Journal(config.out) as journal:
            scheduler = Scheduler(config, mix, engines, self.opened.folder, journal, self.learner.version)
            self.evaluations = Evaluations(config.held_out, held_out, self.opened.metrics, scheduler.fail)
            async with self._background(), watch.watching():
                async with self._saving(), scheduler:
                    while self.learner.version < config.steps:
                        if not scheduler.replaying or not self.learner.version:
                            self.evaluations.begin(self.learner.version, self.publishing)
                        await self._step(scheduler, sync, watch)
                await self._published()
                with self.console.status("held-out evaluation of the final weights"):
                    await self.evaluations.finish(self.learner.version)
        await self._finish()

    async def _step(self, scheduler: Scheduler, sync: FleetSync, watch: EngineWatch) -> None:
        """One step: a batch, an update, its publication, its metrics."""
        start = time.monotonic()
        step = self.learner.version + 1
        replayed = scheduler.replaying
        with self.console.status(f"step {step}: waiting for rollouts"):
            batch = await scheduler.next_batch()
        if self.publishing is not None and self.publishing.done():
            self.publishing.result()  # raises before anything is trained that was sampled from weights that failed
        samples = await asyncio.to_thread(batch.samples)
        if not samples:
            raise RunStopped("nothing to train", f"step {step}: no rollout has a sampled token", 1)
        taught = {}
        if self.teacher is not None:
            with self.console.status(f"step {step}: asking the teacher"):
                taught = await self.teacher.read(step, samples)
        if self.options.dump_samples is not None:
            write_samples(self.options.dump_samples, step, samples)
        with self.console.status(f"step {step}: updating; {scheduler.in_flight} groups in flight"):
            values = taught | await self._update(samples)
        scheduler.trained()
        published = time.monotonic()
        values |= await self._published()
        if not scheduler.replaying:
            await self._publish(scheduler, sync)
        values["seconds/sync"] = time.monotonic() - published
        values |= batch_metrics(batch, samples)
        seconds = time.monotonic() - start
        values |= {
            "seconds/wait": batch.seconds,
            "seconds/wait_overdue": batch.seconds_overdue,
            "idle/trainer": batch.seconds / seconds,
            "idle/engine": batch.engine_idle,
            "seconds/step": seconds,
            "tokens_per_second": values["tokens/sampled"] / seconds,
            "replayed": float(replayed),
            **watch.take(),
        }
        await self._record(step, self.config.steps, values)
        self.opened.metrics.show_rollouts(step, lambda count: rollout_rows(batch, count))

    async def _publish(self, scheduler: Scheduler, sync: FleetSync) -> None:
        """Begins to bring the weights into the engine; returns when the learner may be trained further."""
        version, learner_free = self.learner.version, asyncio.Event()

        async def publish() -> dict[str, float]:
            try:
                await self.evaluations.baseline()
                found = await sync.publish(version, learner_free)
            except Exception as error:
                scheduler.fail(error)
                raise
            scheduler.published(version)
            return found

        self.publishing = asyncio.create_task(publish())
        await learner_free.wait()

    async def _published(self) -> dict[str, float]:
        """Waits until the newest weights are in the engine and verified. Returns the metrics of that, once."""
        if self.publishing is None:
            return {}
        found = await self.publishing
        self.publishing = None
        return found

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """When the work ends, for whatever reason, no evaluation runs, and no weights are on their way into the
        engine any more."""
        try:
            yield
        finally:
            await self.evaluations.stop()
            if self.publishing is not None:
                self.publishing.cancel()
                await asyncio.gather(self.publishing, return_exceptions=True)

    async def _update(self, samples: list[Sample]) -> dict[str, float]:
        """The optimizer step, in a thread."""
        start = time.monotonic()
        beside: tuple[Any, ...] = ()
        if self.supervised is not None and self.config.supervised is not None:
            beside = self.supervised.batch(self.learner.version), self.config.supervised.weight
        values = await to_its_end(self.learner.step, samples, *beside)
        return values | {"seconds/train": time.monotonic() - start}

    async def _record(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Writes and shows the metrics of a step, saves a checkpoint if due, stops after too many skipped ones."""
        self.opened.metrics.write(step, values)
        self.opened.metrics.show_step(step, steps, values)
        self.recorded = step
        self.equal = self.equal + 1 if values.get("groups/zero_advantage") == 1.0 else 0
        if self.equal == ALL_EQUAL:
            say(self.console, f"note: {NOTHING_LEARNED.format(self.equal, values['reward/mean'])}", "yellow")
        if step % self.config.checkpoint.every == 0:
            await self._save()
        self.opened.check_applied(self.learner, last=step == steps)

    async def _save(self) -> None:
        """Saves a checkpoint, unless the last step has one."""
        if self.saved != self.learner.version == self.recorded:
            await to_its_end(self.opened.checkpoints.save, self.recorded, self.learner, {"step": self.recorded})
            self.saved = self.recorded

    @contextlib.asynccontextmanager
    async def _saving(self) -> AsyncIterator[None]:
        """When the work ends, there is a checkpoint of the last step. After a kill, the journal makes up for it."""
        try:
            yield
        finally:
            if self.learner.version:
                await self._save()

    async def _finish(self) -> None:
        await to_its_end(self.opened.finish, self.learner)

    @contextlib.asynccontextmanager
    async def _engines(self, model: Path) -> AsyncIterator[Fleet]:
        """The engines of the run. What happens to one is said, and kept in the record."""

        earlier = self.opened.record.get(ENGINE_EVENTS, [])

        def tell(what: str) -> None:
            say(self.console, what, "yellow")
            self.opened.add_to_record(**{ENGINE_EVENTS: [*earlier, *engines.events]})

        async with open_fleet(self.config, model, self.console, tell) as engines:
            yield engines

    @contextlib.asynccontextmanager
    async def _taught(self, model: Path, engines: Fleet) -> AsyncIterator[None]:
        """With the teacher of the run, if it has one."""
        config = self.config
        if config.teacher is None:
            yield
            return
        with stage(self.console, f"asking the teacher, {config.teacher.model}") as tell:
            trained = self.learner.version
            window = max(engines.windows, default=None)
            opening = open_teacher(
                *(config.teacher, model, config.out, trained, window),
                seed=config.seed,
                progress=lambda at, seconds: tell(f"{at}, {seconds:.0f} s"),
            )
            self.teacher = await opening.__aenter__()
        self.opened.add_to_record(teacher=self.teacher.describe())
        try:
            yield
        finally:
            await opening.__aexit__(None, None, None)
