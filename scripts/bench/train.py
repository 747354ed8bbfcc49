#!/usr/bin/env python3
"""A training run of tiny-rlm, step by step, beside the two things that every run has to do.

    python scripts/bench/train.py [--quick] [--only trees]

Runs `configs/train/tiny.toml` for a few steps in a temporary folder, without its held-out evaluation. The first two
steps warm up; the last is left out too, since nothing is sampled beside it. Then, in the same process and on the
same number of threads, the two floors of `train_floors.py`, on what the measured steps did:

  sampling   the prompts of all rollouts made for these steps, root turns and sub-calls, those thrown away too, sent
             to a vLLM started alike, all at once, and as many tokens sampled after each
  update     forward, backward and optimizer on the same packs, in plain transformers and torch with attention by
             sample; beside it the learner itself on the same samples, with nothing else going on, and `dense`: the
             plain loop with a mask over the whole pack, as transformers attends without help

  both       the two at once, until both have ended: what perfect overlap takes on this machine, where engine and
             trainer share caches and memory, and the cores where there are few

A step is held against the larger floor, against both at once, and against their sum, which is a step without overlap.
On a machine that others use, seconds say little: therefore CPU seconds too, of the run's own processes alone.

Overhead outside torch is given twice: `on_path` is what is left of a step's seconds without the wait for rollouts,
forward, backward, update and weight sync; `parts` are the functions that do this work, wherever they run, most of
them beside the update. One checkpoint falls into the measured steps, so `--quick` makes too much of it. Stored samples
(`--dump-samples`) are off. One JSON object a line.

Last, and alone with `--only trees`, which needs no vLLM: rows `trees`, of batches of scripted sessions
(`train_trees.py`) and of the measured steps' own samples: how many times fewer tokens are computed as trees than flat,
and how many times less a step takes, by the clock and in CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import psutil
import torch
import train_trees
from rich.console import Console
from train_floors import DENSE, PlainTrainer, Reply, sample_flat_out

from rlm_env.llm.vllm.install import usable_cores
from rlm_env.rollout import read_rollouts
from rlm_env.runs.folder import ROLLOUTS, RunFolder
from rlm_env.runs.models import model_folder
from rlm_env.train.learner.checkpoint import Checkpoints
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.packing import Pack
from rlm_env.train.learner.samples import Sample
from rlm_env.train.report.metrics import METRICS, MetricsLog, read_metrics
from rlm_env.train.rl import trainer
from rlm_env.train.rl.config import TrainConfig, load_train_config
from rlm_env.train.rl.groups import Batch, DropReason
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.scheduler import Scheduler
from rlm_env.train.run_files import JOURNAL
from rlm_env.train.sync.local_engine import LocalEngine

CONFIG = Path(__file__).parents[2] / "configs" / "train" / "tiny.toml"
WARM_UP = 2
LEARNER = "learner"
PARTS: dict[str, list[tuple[Any, str]]] = {
    "samples": [(Batch, "samples")],
    LEARNER: [(Learner, "step")],
    "metrics": [(trainer, "batch_metrics"), (MetricsLog, "write"), (MetricsLog, "show_step")],
    "checkpoint": [(Checkpoints, "save")],
    "journal": [(Journal, "drawn"), (Journal, "dropped"), (Journal, "batch"), (RunFolder, "sync")],
    "rollouts_to_disk": [(RunFolder, "append")],
    "schedule": [(Scheduler, "_fill"), (Scheduler, "_end"), (Scheduler, "published")],
}


@dataclass(slots=True)
class Mark:
    """All clocks at the beginning of a step, without the time that taking marks costs."""

    wall: float
    parts: Counter[str]
    loop_cpu: float
    learner_cpu: float
    trainer_cpu: float
    engine_cpu: float
    repl_cpu: float


class Watch:
    """Observes a run: seconds by part, clocks at each step, the samples that were trained."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        """One for the beginning of each step."""
        self.trained: list[list[Sample]] = []
        """The samples of each step."""
        self._parts: Counter[str] = Counter()
        self._learner_cpu = 0.0
        self._spent_looking = 0.0
        self._open = threading.local()

    @contextlib.contextmanager
    def looking_on(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for part, functions in PARTS.items():
                for owner, name in functions:
                    stack.enter_context(patch.object(owner, name, self._timed(part, getattr(owner, name))))
            stack.enter_context(patch.object(Learner, "step", self._kept(Learner.step)))
            stack.enter_context(patch.object(Scheduler, "next_batch", self._marked(Scheduler.next_batch)))
            yield

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Seconds of a function, without those of other parts that it calls."""

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            inner = self._open.__dict__.setdefault("seconds", [])
            inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                seconds = time.perf_counter() - start
                self._parts[part] += seconds - inner.pop()
                if inner:
                    inner[-1] += seconds

        return call

    def _kept(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def call(learner: Learner, samples: list[Sample]) -> dict[str, float]:
            self.trained.append(samples)
            start = time.thread_time()
            try:
                return step(learner, samples)
            finally:
                self._learner_cpu += time.thread_time() - start

        return call

    def _marked(self, next_batch: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(next_batch)
        async def call(scheduler: Scheduler) -> Batch:
            start = time.perf_counter()
            children = children_cpu()
            own = (time.thread_time(), self._learner_cpu, time.process_time())
            self._spent_looking += time.perf_counter() - start
            wall = time.perf_counter() - self._spent_looking
            self.marks.append(Mark(wall, self._parts.copy(), *own, *children))
            return await next_batch(scheduler)

        return call


def children_cpu() -> tuple[float, float]:
    """CPU seconds so far of the engine and of the REPLs, which are child processes, including ended children."""
    found = {"engine": 0.0, "repl": 0.0}
    of_engine: set[int] = set()
    for process in psutil.Process().children(recursive=True):  # parents before their children
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() in of_engine or any("supervise.py" in word for word in process.cmdline()):
                of_engine.add(process.pid)
            found["engine" if process.pid in of_engine else "repl"] += sum(process.cpu_times()[:4])
    return found["engine"], found["repl"]


def replies_of(folder: Path, first: int, last: int) -> list[Reply]:
    """All replies that were sampled for these steps, including those of groups that were dropped."""
    groups: set[int] = set()
    dropped: set[int] = set()
    for line in (folder / JOURNAL).read_text("ascii").splitlines():
        event = json.loads(line)
        if event["event"] == "dropped":
            dropped.add(event["group"])
        elif event["event"] == "batch":
            if first <= event["step"] <= last:
                groups |= dropped | set(event["groups"])
            dropped = set()
    replies = []
    for rollout in read_rollouts(folder / ROLLOUTS):
        if rollout.group is not None and rollout.group.group in groups:
            sampled = [*rollout.turns, *(reply for call in rollout.sub_calls for reply in call.replies)]
            replies += [(reply.prompt_ids, len(reply.completion_ids)) for reply in sampled if reply.completion_ids]
    return replies


async def sampling_floor(
    config: TrainConfig, replies: list[Reply], plain: PlainTrainer, steps: list[list[Pack]], rounds: int
) -> tuple[float, float, float]:
    """Seconds and the engine's CPU seconds of the fastest round, and seconds of one beside the plain updates."""
    found = []
    model = model_folder(config.model)
    async with LocalEngine(model, config.engine, log_folder=config.out, dtype=config.trainer.dtype) as engine:
        await sample_flat_out(engine, replies[:200], "warm-up")
        for number in range(rounds):
            before, _ = children_cpu()
            seconds = await sample_flat_out(engine, replies, f"round {number}")
            found.append((seconds, children_cpu()[0] - before))
        plain.step(steps[0])  # warms up
        start = time.perf_counter()
        updating = asyncio.to_thread(lambda: [plain.step(packs) for packs in steps])
        await asyncio.gather(updating, sample_flat_out(engine, replies, "beside"))
        both = time.perf_counter() - start
    return *min(found), both


def update_floor(
    config: TrainConfig, trained: list[list[Sample]], plain: PlainTrainer, steps: list[list[Pack]]
) -> dict[str, float]:
    """Mean seconds and CPU seconds per step of the plain loop, of the learner, and of the plain loop with a dense mask,
    one after the other each time."""
    folder = model_folder(config.model)
    dense = PlainTrainer(folder, config, DENSE)
    learner = Learner(folder, config.trainer, config.optimizer, config.loss, config.steps, config.seed)
    ways: dict[str, Callable[[Any], Any]] = {"plain": plain.step, LEARNER: learner.step, "dense": dense.step}
    found: dict[str, list[float]] = {}
    for number, (samples, packs) in enumerate([(trained[0], steps[0]), *zip(trained, steps, strict=True)]):
        for name, step in ways.items():
            start, cpu = time.perf_counter(), time.process_time()
            step(samples if name == LEARNER else packs)
            if number:  # the first warms up
                found.setdefault(name, []).append(time.perf_counter() - start)
                found.setdefault(f"{name}_cpu", []).append(time.process_time() - cpu)
    return {name: fmean(values) for name, values in found.items()}


def report(what: str, **values: Any) -> None:
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"bench": "train", "what": what} | rounded), flush=True)


@dataclass(slots=True)
class Measured:
    """A run that was watched from its step `first` to its step `last`, and its floors."""

    first: int
    last: int
    watch: Watch
    lines: list[dict[str, float]]
    """The metrics of these steps."""
    replies: list[Reply]
    sampling_floor: tuple[float, float, float]
    """Per step: seconds and CPU seconds of sampling alone, seconds of sampling beside an update."""
    update_floor: dict[str, float]
    load: list[float]

    @property
    def steps(self) -> int:
        return self.last - self.first + 1

    def mean(self, key: str) -> float:
        """A metric per step; 0 where a step does not have it."""
        return fmean(line.get(key, 0.0) for line in self.lines)

    def spent(self, clock: str) -> float:
        """Per step, by one of the clocks of a mark."""
        marks = self.watch.marks
        return (getattr(marks[self.last], clock) - getattr(marks[self.first - 1], clock)) / self.steps


def measure(quick: bool) -> Measured:
    """Trains, then takes the floors on the replies and samples of that run."""
    steps = 2 if quick else 10
    first, last = WARM_UP + 1, WARM_UP + steps
    with tempfile.TemporaryDirectory(prefix="rlm-env-bench-") as folder:
        changes = {"out": f"{folder}/run", "steps": last + 1, "held_out": {"n": 0}, "checkpoint": {"every": last}}
        config = load_train_config(CONFIG, changes)
        watch, load = Watch(), [os.getloadavg()[0]]
        with watch.looking_on():
            trainer.train(config, Console(stderr=True))
        load.append(os.getloadavg()[0])
        lines = [line for line in read_metrics(config.out / METRICS) if first <= line["step"] <= last]
        assert len(lines) == steps
        replies = replies_of(config.out, first, last)
        trained = watch.trained[first - 1 : last]
        torch.set_num_threads(config.trainer.threads or torch.get_num_threads())
        plain = PlainTrainer(model_folder(config.model), config)
        packs = [plain.packs(samples) for samples in trained]
        sampling, cpu, both = asyncio.run(sampling_floor(config, replies, plain, packs, 1 if quick else 2))
        update = update_floor(config, trained, plain, packs)
        load.append(os.getloadavg()[0])
    return Measured(first, last, watch, lines, replies, (sampling / steps, cpu / steps, both / steps), update, load)


def report_floors(found: Measured, sampled: float) -> None:
    """What sampling alone and an update alone take."""
    seconds, cpu, _ = found.sampling_floor
    report(
        "floor: sampling",
        s_per_step=seconds,
        cpu_s_per_step=cpu,
        tokens_per_s=sampled / seconds,
        replies=len(found.replies) / found.steps,
        prompt_tokens=sum(len(prompt) for prompt, _ in found.replies) / found.steps,
    )
    update = found.update_floor
    report(
        "floor: update",
        s_per_step=update["plain"],
        cpu_s_per_step=update["plain_cpu"],
        learner_s_per_step=update[LEARNER],
        learner_is_times=update[LEARNER] / update["plain"],
        learner_is_times_cpu=update[f"{LEARNER}_cpu"] / update["plain_cpu"],
        dense_s_per_step=update["dense"],
        dense_is_times_learner=update["dense"] / update[LEARNER],
        dense_is_times_learner_cpu=update["dense_cpu"] / update[f"{LEARNER}_cpu"],
        threads=torch.get_num_threads(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two measured steps instead of ten")
    parser.add_argument("--only", choices=("trees",), help="only these rows")
    arguments = parser.parse_args()
    if arguments.only is None:
        report_run(measure(arguments.quick), arguments.quick)
    for row in train_trees.rows(model_folder("tiny-rlm"), arguments.quick):
        report("trees", **row)


def report_run(found: Measured, quick: bool) -> None:
    """All rows about the run."""
    mean, spent, update = found.mean, found.spent, found.update_floor
    sampling, sampling_cpu, both = found.sampling_floor
    step = spent("wall")
    sampled = sum(tokens for _, tokens in found.replies) / found.steps
    seconds = {phase: mean(f"seconds/{phase}") for phase in ("wait", "forward", "backward", "update", "sync")}
    sync = {key.removeprefix("sync_seconds_"): mean(key) for key in found.lines[0] if key.startswith("sync_seconds_")}
    report(
        "step",
        steps=found.steps,
        step_s=step,
        **{f"{phase}_s": value for phase, value in seconds.items()},
        sync_parts_s={part: round(value, 4) for part, value in sync.items()},
        sampled_tokens_per_s=sampled / step,
        trained_tokens_per_s=mean("trained_tokens") / step,
        sampled_tokens=sampled,
        trained_tokens=mean("trained_tokens"),
        packs=mean("packs"),
        groups_thrown_away=sum(mean(f"groups/dropped_{reason}") for reason in DropReason),
    )
    cpu = {name: spent(f"{name}_cpu") for name in ("engine", "repl", "trainer", LEARNER, "loop")}
    report("CPU seconds per step", **cpu, cores=usable_cores())
    report_floors(found, sampled)
    report("floor: both at once", s_per_step=both)
    report(
        "step against floors",
        to_larger=step / max(sampling, update["plain"]),
        target=1.25,
        to_both_at_once=step / both,
        to_sum=step / (sampling + update["plain"]),
        cpu_to_sum=(cpu["engine"] + cpu["repl"] + cpu["trainer"]) / (sampling_cpu + update["plain_cpu"]),
        load_before_between_after=found.load,
    )
    before, after = found.watch.marks[found.first - 1].parts, found.watch.marks[found.last].parts
    parts = {part: (after[part] - before[part]) / found.steps for part in PARTS}
    parts["collate"] = parts.pop(LEARNER) - sum(seconds[phase] for phase in ("forward", "backward", "update"))
    report(
        "overhead outside torch",
        on_path_share=1 - sum(seconds.values()) / step,
        parts_share=sum(parts.values()) / step,
        target=0.05,
        **{f"{part}_s": value for part, value in parts.items()},
        sync_share=seconds["sync"] / step,
    )
    folder, config = model_folder("tiny-rlm"), load_train_config(CONFIG, {})
    size, threads = config.trainer.pack_tokens, torch.get_num_threads()
    row = train_trees.compared(folder, found.watch.trained[found.last - 1], size, threads, 1 if quick else 3)
    report("trees", batch="the last measured step", **row)


if __name__ == "__main__":
    sys.exit(main())
