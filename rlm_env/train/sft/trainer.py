"""Supervised training on saved rollouts, with the same learner as reinforcement learning.

A killed run resumes bit for bit from its last checkpoint, since the order of the samples depends on seed and epoch
alone. Not covered: which rollouts are trained (`chosen.py`), the command line (`cli/sft.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.interrupt import interruptible, to_its_end
from rlm_env.runs.models import model_folder
from rlm_env.runs.profile import load_profile
from rlm_env.train.learner import distributed
from rlm_env.train.learner.config import LossConfig, ModelError
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.model import check_buildable, pick_device, read_model_config
from rlm_env.train.learner.packing_check import PackingError
from rlm_env.train.learner.preview import preview_model
from rlm_env.train.learner.samples import Sample, SampleKind
from rlm_env.train.run_files import MODEL
from rlm_env.train.run_folder import OpenRun, check_run_folder, open_run
from rlm_env.train.sft.chosen import Chosen, choose
from rlm_env.train.sft.config import SFTConfig, check_sft_resume

_OF_POLICIES = {
    "ratio",
    "log_ratio_abs",
    "mismatch_kl",
    "clipped",
    "clipped_high",
    "clipped_low",
    "filtered",
    "sampling",
}
"""Metrics of the learner that are meaningless in supervised training."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The samples of each step: each sample once per epoch, in an order that depends on seed and epoch alone."""

    samples: list[Sample]
    config: SFTConfig

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.samples) // self.config.batch_size)

    @property
    def steps(self) -> int:
        whole = self.steps_per_epoch * self.config.epochs
        return min(whole, self.config.max_steps or whole)

    def batch(self, step: int) -> list[Sample]:
        """The samples of a step, counted from 0. An epoch's last batch can be smaller."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self.samples), self.config.seed, epoch)
        first = place * self.config.batch_size
        return [self.samples[index] for index in order[first : first + self.config.batch_size]]


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The indices of so many samples in the order of an epoch."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def sft(config: SFTConfig, console: Console, *, resume: bool = False) -> Path | None:
    """Runs `config`, or the rest of it with `resume`; returns the folder of the trained model.

    Under torchrun every process calls this; all but the first return None. Raises ConfigError before anything is
    written, RunStopped on disk errors and where gradients are not finite. KeyboardInterrupt and Terminated are raised
    when the step has ended and, on one process, has a checkpoint.
    """
    check_run_folder(config, resume=resume)
    folder = model_folder(config.model)
    with distributed.process_group(pick_device(config.trainer, distributed.local_rank())):
        chosen = select_rollouts(config, folder, console)
        plan = Plan(chosen.samples, config)
        try:
            loss = LossConfig(preset="sft")
            learner = Learner(folder, config.trainer, config.optimizer, loss, plan.steps, config.seed)
        except (ModelError, PackingError) as error:
            raise ConfigError(str(error)) from error
        if distributed.rank() > 0:
            distributed.follow(learner)
            return None
        fixed_inputs = {"samples_sha256": ("rollouts", hash_samples([*chosen.samples, *chosen.held_out]))}
        with (
            distributed.leading(learner) as led,
            open_run(config, led, console, check_sft_resume, resume=resume, fixed_inputs=fixed_inputs) as run,
        ):
            asyncio.run(interruptible(_train(plan, chosen.held_out, led, run)))
        return config.out / MODEL


def preview_sft(config: SFTConfig, console: Console) -> None:
    """Selects the rollouts, checks everything else and shows a summary. Trains and writes nothing. Raises
    ConfigError."""
    check_run_folder(config)
    folder = model_folder(config.model)
    plan = Plan(select_rollouts(config, folder, console).samples, config)
    try:
        pick_device(config.trainer)
        check_buildable(read_model_config(folder), config.trainer)
        lines = preview_model(folder, config.trainer)
    except (ModelError, PackingError) as error:
        raise ConfigError(str(error)) from error
    lora = config.trainer.lora
    how = f"LoRA of rank {lora.rank}" if lora else "all weights"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("run", f"{plan.steps:,} steps of {config.batch_size} samples, at most {config.epochs} epochs")
    table.add_row("model", f"{config.model}, {how}, {config.trainer.dtype}, lr {config.optimizer.lr:g}")
    for name, value in lines:
        table.add_row(name, value)
    table.add_row("output", str(config.out))
    console.print(table)


def select_rollouts(config: SFTConfig, folder: Path, console: Console) -> Chosen:
    """Reads and filters the rollouts, and prints the counts. Raises ConfigError if none is left."""
    with console.status("reading rollouts"):
        chosen = choose(config, ChatTokens(folder, load_profile(folder).get("renderer")))
    if distributed.rank() == 0:
        console.print(_selection_table(chosen))
    if not chosen.samples:
        raise ConfigError(f"{chosen.nothing_left}: loosen [keep], or give other rollouts")
    return chosen


def _selection_table(chosen: Chosen) -> Table:
    """The table of what was read, kept and dropped."""
    samples = [*chosen.samples, *chosen.held_out]
    by_kind = {kind: [sample for sample in samples if sample.kind is kind] for kind in SampleKind}
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rollouts read", f"{chosen.read:,}")
    for reason, count in chosen.dropped.most_common():
        table.add_row(f"  dropped, {reason}", f"{count:,}")
    table.add_row("kept", f"{chosen.kept:,}")
    if chosen.encoded:
        table.add_row("  of them encoded from text", f"{chosen.encoded:,}")
    table.add_row("tasks, of them held out", f"{chosen.tasks:,}, {chosen.held_out_tasks:,}")
    for kind, found in by_kind.items():
        trained = sum(sample.trained_tokens for sample in found)
        table.add_row(f"{kind} samples, trained tokens", f"{len(found):,}, {trained:,}")
    return table


async def _train(plan: Plan, held_out: list[Sample], learner: Learner, run: OpenRun[SFTConfig]) -> None:
    """The loop over steps, with metrics, held-out loss and checkpoints. Where it is cancelled, the step comes to its
    end, and on one process has a checkpoint."""
    config = run.config
    saved = learner.version
    run.begin(learner, plan.steps)

    def save() -> None:
        nonlocal saved
        if saved != learner.version:
            run.checkpoints.save(learner.version, learner, {})
            saved = learner.version

    with Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=run.console,
    ) as progress:
        bar = progress.add_task("", total=plan.steps, completed=learner.version, note="")

        def one_step() -> None:
            step = learner.version
            if step % config.held_out_every == 0:
                _measure(held_out, learner, run)
            values = learner.step(plan.batch(step))
            values = {key: value for key, value in values.items() if _OF_POLICIES.isdisjoint(key.split("/"))}
            run.metrics.write(step + 1, {**values, "epoch": (step + 1) / plan.steps_per_epoch})
            progress.update(bar, advance=1, note=f"loss {values['loss']:.4f}")
            if (step + 1) % config.checkpoint.every == 0 or step + 1 == plan.steps:
                save()
            run.check_applied(learner, last=step + 1 == plan.steps)

        try:
            while learner.version < plan.steps:
                await to_its_end(one_step)
        except asyncio.CancelledError:
            if distributed.world_size() == 1:  # of several processes the others have got the signal too, and are gone
                await to_its_end(save)
            raise
        await to_its_end(_measure, held_out, learner, run)
    await to_its_end(run.finish, learner)


def _measure(held_out: Sequence[Sample], learner: Learner, run: OpenRun[SFTConfig]) -> None:
    """Records the mean held-out loss in nats per trained token, of all samples and by kind, weighted as in training."""
    step = learner.version
    if not held_out or run.metrics.evaluated(step):
        return
    scores = learner.score(list(held_out))
    values = {}
    for name, kinds in {
        "eval/loss": tuple(SampleKind),
        **{f"eval/{kind}/loss": (kind,) for kind in SampleKind},
    }.items():
        chosen = [(sample, score) for sample, score in zip(held_out, scores, strict=True) if sample.kind in kinds]
        if weight := sum(sample.weight * sample.stands_for * len(score) for sample, score in chosen):
            values[name] = -sum(sample.weight * sample.stands_for * sum(score) for sample, score in chosen) / weight
    run.metrics.write(step, values)
    say(run.console, f"held-out loss after {step} steps: {values['eval/loss']:.4f}", "cyan")


def hash_samples(samples: Sequence[Sample]) -> str:
    found = hashlib.sha256()
    for sample in samples:
        found.update(array("q", sample.token_ids))
        found.update(bytes(sample.mask))
    return found.hexdigest()[:16]
