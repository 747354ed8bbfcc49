"""The metrics of a run: always in metrics.jsonl, on the console, and in Weights & Biases where that is configured.

The numbers themselves come from `rl/batch_metrics.py`, `learner/learner.py` and `rl/held_out.py`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console

from rlm_env.runs.config_table import Table
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.jsonl import JsonLog, read_jsonl, write_jsonl

METRICS = "metrics.jsonl"
COLUMNS = (
    ("reward", "reward/mean", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("kl", "mismatch_kl", ".1e"),
    ("clipped", "clipped", ".2%"),
    ("grad", "grad_norm", ".2f"),
    ("off-policy", "off_policy_steps/mean", ".1f"),
    ("zero-adv.", "groups/zero_advantage", ".0%"),
    ("sub-calls", "sub_calls/mean", ".1f"),
    ("sub tokens", "tokens/sub_share", ".0%"),
    ("wait s", "seconds/wait", ".1f"),
    ("train s", "seconds/train", ".1f"),
    ("sync s", "seconds/sync", ".1f"),
    ("tok/s", "tokens_per_second", ",.0f"),
)
"""The console's table: heading, metric, format."""
HEADING_EVERY = 20
"""Rows of the console's table between two headings."""


class WandbConfig(Table):
    """Weights & Biases, in addition to metrics.jsonl."""

    project: str
    """The project that the run belongs to."""
    name: str | None = None
    """None: the name of the output folder."""
    entity: str | None = None
    """The user or team that owns it; None: your default."""
    mode: Literal["online", "offline"] = "online"
    """`offline`: written to the output folder, for `wandb sync`."""


class MetricsLog:
    """The metrics of the run in `folder`, open for writing; a context manager."""

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        trained: int = 0,
        wandb: WandbConfig | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`trained`: updates that the resumed weights have seen. Lines of later updates are removed, since these will
        be done again; evaluations stay. `config`: the run's config, for Weights & Biases.

        Raises ConfigError where wandb is configured and not installed, where a line is damaged, and where another
        process is writing.
        """
        self.path = folder / METRICS
        self._console = console
        self._printed = 0
        kept = [line for line in read_metrics(self.path) if line["step"] <= trained or _is_evaluation(line)]
        self._steps = {(line["step"], _is_evaluation(line)) for line in kept}
        write_jsonl(self.path, kept)
        self._log = JsonLog(self.path)
        self._wandb = None if wandb is None else _start_wandb(folder, wandb, config or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        if self._wandb is not None:
            self._wandb.finish()

    def evaluated(self, step: int) -> bool:
        """True where the file has the held-out evaluation after `step` updates."""
        return (step, True) in self._steps

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line. Numbers that are not finite are left out, since JSON has none. Raises RunStopped where the
        disk refuses."""
        line = {"step": step, **{key: value for key, value in values.items() if math.isfinite(value)}}
        self._steps.add((step, _is_evaluation(line)))
        self._log.append(line)
        if self._wandb is not None:
            self._wandb.log(line)

    def show_step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Prints one row of the console's table."""
        if self._printed % HEADING_EVERY == 0:
            heads = "".join(f"{head:>{_width(head)}}" for head, _, _ in COLUMNS)
            say(self._console, f"{'step':>9}{heads}", "bold")
        cells = "".join(
            f"{format(values[key], form) if key in values else '-':>{_width(head)}}" for head, key, form in COLUMNS
        )
        say(self._console, f"{f'{step}/{steps}':>9}{cells}")
        self._printed += 1

    def show_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Prints one line per environment."""
        for key, mean in values.items():
            if key.startswith("eval/") and key.endswith("/score"):
                name = key.removesuffix("/score")
                interval = f"[{values[f'{name}/low']:.3f}, {values[f'{name}/high']:.3f}]"
                text = f"held out after {step} steps: {name.removeprefix('eval/')} {mean:.3f} {interval}"
                say(self._console, text, "cyan")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; an empty list where there is no file. Raises ConfigError where one is damaged."""
    return list(read_jsonl(path))


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(key.startswith("eval/") for key in line)


def _width(head: str) -> int:
    return max(len(head), 7) + 2


def _start_wandb(folder: Path, wandb_config: WandbConfig, config: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("wandb is configured and not installed: pip install 'rlm-env[wandb]'") from error
    id_file = folder / "wandb-id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4))
    run = wandb.init(
        project=wandb_config.project,
        entity=wandb_config.entity,
        name=wandb_config.name or folder.name,
        mode=wandb_config.mode,
        dir=str(folder),
        id=id_file.read_text(),
        resume="allow",
        config=dict(config),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")  # not the number of calls of `log`, which evaluations raise too
    return run
