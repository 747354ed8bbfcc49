"""Where metrics and rollouts go beside metrics.jsonl: Weights & Biases, and TensorBoard, which is free and local.

Both draw over optimizer steps. What is logged when is decided in `metrics.py`; which rollouts are shown, in
`rl/shown_rollouts.py`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from rlm_env.runs.config_table import Table
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import disk_errors

Row = Mapping[str, Any]
"""A rollout as a row of a table: column -> value."""
ROLLOUTS = "rollouts"
"""The name of the table of sampled rollouts."""
NOT_INSTALLED = "{0} is configured and not installed: pip install 'rlm-env[{0}]'"
TENSORBOARD = "tensorboard"
"""The folder of TensorBoard's files, within that of the run."""
WANDB_ID = "wandb-id"
"""The file with the id of the run at Weights & Biases, which a resumed run goes on with."""


class TrackerConfig(Table):
    """What trackers have in common."""

    rollouts: int = Field(default=8, ge=0)
    """Trained rollouts that are logged to be read, drawn at random; 0: none."""
    rollouts_every: int = Field(default=10, ge=1)
    """Steps between two such tables; the first step always has one."""


class WandbConfig(TrackerConfig):
    """Weights & Biases, in addition to metrics.jsonl."""

    project: str
    """The project that the run belongs to."""
    name: str | None = None
    """None: the name of the output folder."""
    entity: str | None = None
    """The user or team that owns it; None: your default."""
    mode: Literal["online", "offline"] = "online"
    """`offline`: written to the output folder, for `wandb sync`."""


class TensorboardConfig(TrackerConfig):
    """TensorBoard, in addition to metrics.jsonl: `tensorboard --logdir OUT`."""


class Tracker(Protocol):
    """A service that draws metrics."""

    @property
    def config(self) -> TrackerConfig: ...

    fresh: bool
    """True if it knows nothing of the run yet, so that what is in metrics.jsonl already should be logged too."""

    def log(self, line: Mapping[str, Any]) -> None:
        """Logs the numbers of a line of metrics.jsonl over its `step`."""
        ...

    def show(self, step: int, rows: Sequence[Row]) -> None:
        """Logs a table of rollouts."""
        ...

    def close(self) -> None: ...


class WandbTracker:
    """A run of Weights & Biases, the same one after a resume."""

    def __init__(self, folder: Path, config: WandbConfig, values: Mapping[str, Any]) -> None:
        """`values`: the run's config. Raises ConfigError where wandb is not installed."""
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(NOT_INSTALLED.format("wandb")) from error
        id_file = folder / WANDB_ID
        self.config = config
        self.fresh = not id_file.exists()
        if self.fresh:
            id_file.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or folder.name,
            mode=config.mode,
            dir=str(folder),
            id=id_file.read_text(),
            resume="allow",
            config=dict(values),
        )
        self._table = wandb.Table
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # not the number of calls of `log`

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(dict(line))

    def show(self, step: int, rows: Sequence[Row]) -> None:
        columns: list[Any] = list(rows[0])
        table = self._table(columns=columns, data=[[row[column] for column in columns] for row in rows])
        self._run.log({ROLLOUTS: table, "step": step})

    def close(self) -> None:
        self._run.finish()


class TensorboardTracker:
    """Event files in the run's folder."""

    def __init__(self, folder: Path, config: TensorboardConfig) -> None:
        """Raises ConfigError where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(NOT_INSTALLED.format("tensorboard")) from error
        self.config = config
        self.folder = folder / TENSORBOARD
        self.fresh = not self.folder.exists()
        with disk_errors(self.folder, "opening it"):
            self._writer = SummaryWriter(str(self.folder))

    def log(self, line: Mapping[str, Any]) -> None:
        """Raises RunStopped where the disk refuses, or has refused what was logged before."""
        with disk_errors(self.folder, "logging metrics"):
            for name, value in line.items():
                if name != "step":
                    self._writer.add_scalar(name, value, line["step"])
            self._writer.flush()

    def show(self, step: int, rows: Sequence[Row]) -> None:
        """Raises RunStopped as `log` does."""
        with disk_errors(self.folder, "logging rollouts"):
            for number, row in enumerate(rows):
                facts = "\n".join(f"    {name}: {value}" for name, value in row.items() if "\n" not in str(value))
                texts = (f"**{name}**\n\n{_as_code(str(value))}" for name, value in row.items() if "\n" in str(value))
                self._writer.add_text(f"{ROLLOUTS}/{number}", "\n\n".join([facts, *texts]), step)
            self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a disk that refuses has been reported, or the run is over
            self._writer.close()


def check_trackers(wandb: WandbConfig | None, tensorboard: TensorboardConfig | None) -> None:
    """Raises ConfigError where one that is configured is not installed."""
    for name, config in (("wandb", wandb), ("tensorboard", tensorboard)):
        if config is not None and importlib.util.find_spec(name) is None:
            raise ConfigError(NOT_INSTALLED.format(name))


def start_trackers(
    folder: Path, wandb: WandbConfig | None, tensorboard: TensorboardConfig | None, values: Mapping[str, Any]
) -> list[Tracker]:
    """Those that are configured. Raises ConfigError where one is not installed."""
    found: list[Tracker] = []
    if wandb is not None:
        found.append(WandbTracker(folder, wandb, values))
    if tensorboard is not None:
        found.append(TensorboardTracker(folder, tensorboard))
    return found


def _as_code(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
