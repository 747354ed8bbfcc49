"""The output folder of a training run, made or taken up again: what `rlm-env train` and `rlm-env sft` have in common.

Covered: refusing to write over a run or to go on with another one, its record, its newest checkpoint, its metrics.
Not covered: what a run does (`trainer.py`, `sft.py`), which configs may follow each other (`run_config.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from rich.console import Console

from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import RunFolder, plain, read_config
from rlm_env.runs.models import resolve_model
from rlm_env.runs.record import describe_model, versions
from rlm_env.train.learner.checkpoint import Checkpoints
from rlm_env.train.learner.learner import Learner
from rlm_env.train.report.metrics import MetricsLog
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.sft.config import SFTConfig

CHECKPOINTS, WEIGHTS, MODEL = "checkpoints", "weights", "model"
"""Folders within that of a run: what it resumes from, what an engine serves, and the trained model."""

Config = TypeVar("Config", TrainConfig, SFTConfig)


@dataclass(frozen=True, slots=True)
class OpenRun(Generic[Config]):
    """The folder of a run that goes on."""

    config: Config
    folder: RunFolder
    checkpoints: Checkpoints
    metrics: MetricsLog
    console: Console

    def finish(self, learner: Learner) -> None:
        """Writes the trained model, and that the run is complete."""
        learner.export(self.config.out / MODEL)
        self.folder.write_summary({"status": "complete", "steps": learner.version, "model": MODEL})


@contextmanager
def open_run(
    config: Config,
    learner: Learner,
    console: Console,
    check_resume: Callable[[dict[str, Any], Config], None],
    *,
    resume: bool,
    made_of: Mapping[str, tuple[str, Any]] | None = None,
) -> Iterator[OpenRun[Config]]:
    """Opens the run's folder; a resumed run's learner is put where its newest checkpoint was.

    `check_resume`: refuses a config that may not follow the recorded one. `made_of`: what else than the model's
    weights must be the same on resume: key in the record -> (what it is called, its value).
    Raises ConfigError where the folder does not fit.
    """
    checkpoints = Checkpoints(config.out / CHECKPOINTS, config.checkpoint.keep)
    if not resume and checkpoints.latest() is not None:
        raise ConfigError(f"{config.out} already holds a run; add --resume to go on, or choose another --out folder")
    parts = {"model": ("weights", plain(describe_model(resolve_model(config.model)))), **(made_of or {})}
    record: dict[str, Any] = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
    record |= {key: value for key, (_, value) in parts.items()}
    record["versions"] = versions()
    with RunFolder(config.out, resume=resume) as folder:
        if resume:
            old = read_config(config.out)
            was = old.pop(RECORD)
            check_resume(old, config)
            for key, (name, value) in parts.items():
                if was[key] != value:
                    raise ConfigError(f"{config.out} began with other {name} than are there now; choose another --out")
            record["started"] = was["started"]
            if (latest := checkpoints.latest()) is not None:
                checkpoints.load(learner, latest)
                console.print(f"resumed after {learner.version} steps from {latest}", markup=False)
        else:
            for name in (CHECKPOINTS, WEIGHTS, MODEL):
                shutil.rmtree(config.out / name, ignore_errors=True)
        folder.write_config({**config.as_toml(), RECORD: record})
        with MetricsLog(config.out, config, console, trained=learner.version) as metrics:
            yield OpenRun(config, folder, checkpoints, metrics, console)
