"""The output folder of a training run, begun or resumed: what `rlm-env train` and `rlm-env sft` have in common.

It refuses to overwrite a run, or to resume one under another config or other weights. Which configs may follow each
other is decided in `rl/config.py` and `sft/config.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rich.console import Console

from rlm_env.runs.config import RECORD
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.files import disk_errors
from rlm_env.runs.folder import CONFIG, SUMMARY, RunFolder, plain, read_run_config, refuse_foreign
from rlm_env.runs.models import resolve_model
from rlm_env.runs.record import describe_model, new_record
from rlm_env.train.learner.checkpoint import Checkpoints
from rlm_env.train.learner.config import CheckpointConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.report.metrics import METRICS, MetricsLog
from rlm_env.train.report.tracking import TENSORBOARD, WANDB_ID, TensorboardConfig, WandbConfig, check_trackers
from rlm_env.train.run_files import CHECKPOINTS, HELD_OUT, JOURNAL, MODEL, TEACHER, WEIGHTS

ENGINE_EVENTS = "engine_events"
"""Key of the record: what happened to engines, oldest first."""
KEPT = ("started", ENGINE_EVENTS)
"""Keys of the record that a resumed run goes on with."""
MAX_SKIPPED = 3
"""A run stops after this many steps in a row whose gradient was not finite, or after its last step if that one was."""


class RunConfig(Protocol):
    """What `TrainConfig` and `SFTConfig` have in common."""

    @property
    def model(self) -> str: ...
    @property
    def out(self) -> Path: ...
    @property
    def checkpoint(self) -> CheckpointConfig: ...
    @property
    def wandb(self) -> WandbConfig | None: ...
    @property
    def tensorboard(self) -> TensorboardConfig | None: ...
    def as_toml(self) -> dict[str, Any]: ...


Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True, slots=True)
class OpenRun(Generic[Config]):
    """The folder of a run in progress."""

    config: Config
    folder: RunFolder
    checkpoints: Checkpoints
    metrics: MetricsLog
    console: Console
    record: dict[str, Any]
    """What the run is made of, in its config.toml: when it began, the weights, versions, engines."""

    def add_to_record(self, **parts: Any) -> None:
        """Adds to the record on disk what is known only now."""
        self.record.update(plain(parts))
        self.folder.write_config({**self.config.as_toml(), RECORD: self.record})

    def begin(self, learner: Learner, steps: int) -> None:
        """To be called before a process makes its first step of `steps`: there is no end of the run yet.

        Raises RunStopped where all steps are made and the last one was not applied: such a run is not complete, however
        often it is resumed.
        """
        if learner.version >= steps:
            self.check_applied(learner, last=True)
        else:
            (self.config.out / SUMMARY).unlink(missing_ok=True)

    def check_applied(self, learner: Learner, *, last: bool) -> None:
        """Raises RunStopped after `MAX_SKIPPED` steps in a row whose gradient was not finite, and where the `last` step
        of the run is one."""
        if learner.skipped >= MAX_SKIPPED or (learner.skipped and last):
            raise RunStopped(
                "gradients not finite",
                f"the gradients of the last {learner.skipped} steps were not finite and not applied. Look at loss and "
                "grad_norm in metrics.jsonl; begin anew with a lower optimizer.lr, or look for samples with extreme "
                f"log-probabilities{'. No trained model was written' if last else ''}",
                1,
            )

    def finish(self, learner: Learner) -> None:
        """Exports the trained model and marks the run as complete. Raises RunStopped where its last step was not
        applied."""
        self.check_applied(learner, last=True)
        learner.export(self.config.out / MODEL)
        self.folder.write_summary({"status": "complete", "steps": learner.version, "model": MODEL})


def check_run_folder(config: RunConfig, *, resume: bool = False) -> None:
    """Raises ConfigError, before anything is loaded, where the run's folder cannot be written to, holds files of
    somebody else, or the model to begin with where a run writes; and where a tracker that is configured is not
    installed. Writes nothing."""
    there = config.out.absolute()
    while not (there.exists() or there.is_symlink()):
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"out: {config.out} cannot be a folder, since {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"out: {config.out} cannot be written to, since {there} does not allow it")
    if not resume:
        refuse_foreign(config.out)
    source = Path(config.model).resolve()
    for name in (MODEL, WEIGHTS, CHECKPOINTS):
        if source.is_relative_to((config.out / name).resolve()):
            raise ConfigError(
                f"out: the model to begin with, {config.model}, is in {config.out / name}, which the run writes; "
                "choose another --out folder"
            )
    check_trackers(config.wandb, config.tensorboard)


@contextmanager
def open_run(
    config: Config,
    learner: Learner,
    console: Console,
    check_resume: Callable[[dict[str, Any], Config], None],
    *,
    resume: bool,
    fixed_inputs: Mapping[str, tuple[str, Any]] | None = None,
) -> Iterator[OpenRun[Config]]:
    """Opens the run's folder. On resume, loads the newest checkpoint into the learner.

    `check_resume`: raises ConfigError for a config that may not follow the recorded one. `fixed_inputs`: what must be
    the same on resume, in addition to the model's weights, as key in the record -> (name in messages, value).
    Raises ConfigError where the folder does not fit. The status of a RunStopped goes into summary.json.
    """
    checkpoints = Checkpoints(config.out / CHECKPOINTS, config.checkpoint.keep)
    if not resume:
        refuse_foreign(config.out)
        if (config.out / MODEL).exists() or not checkpoints.is_empty():
            raise ConfigError(
                f"{config.out} already holds a run; add --resume to go on, or choose another --out folder"
            )
    inputs = {"model": ("weights", plain(describe_model(resolve_model(config.model)))), **(fixed_inputs or {})}
    record = new_record(**{key: value for key, (_, value) in inputs.items()})
    with RunFolder(config.out, resume=resume) as folder:
        if resume:
            old = read_run_config(config.out)
            was = old.pop(RECORD, None)
            if not isinstance(was, dict):
                raise ConfigError(f"{config.out / CONFIG} has lost its table [{RECORD}]; choose another --out")
            check_resume(old, config)
            for key, (name, value) in inputs.items():
                if was.get(key) != value:
                    raise ConfigError(f"{config.out} began with other {name} than are there now; choose another --out")
            record |= {key: was[key] for key in KEPT if key in was}
            restored = checkpoints.restore(learner, lambda text: say(console, text, "yellow"))
            if restored is not None:
                say(console, f"resumed after {learner.version} steps from {restored}")
        else:
            with disk_errors(config.out, "removing what a run left that ended before it had stored anything"):
                _remove_state(config.out)
        folder.write_config({**config.as_toml(), RECORD: record})
        trackers = {"wandb": config.wandb, "tensorboard": config.tensorboard, "config": config.as_toml()}
        with MetricsLog(config.out, console, trained=learner.version, **trackers) as metrics:
            try:
                yield OpenRun(config, folder, checkpoints, metrics, console, record)
            except RunStopped as stop:
                with suppress(RunStopped):  # a disk that refuses has been reported
                    folder.write_summary({"status": stop.status, "steps": learner.version})
                raise


def _remove_state(folder: Path) -> None:
    """Removes what an earlier run has noted of itself. The folder is a run's, without rollouts, checkpoints and a
    trained model."""
    for name in (CHECKPOINTS, WEIGHTS, TENSORBOARD):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    for name in (SUMMARY, METRICS, WANDB_ID, JOURNAL, HELD_OUT, TEACHER):
        (folder / name).unlink(missing_ok=True)
