"""Where the metrics of a run go: metrics.jsonl always, the console, Weights & Biases where it is asked for.

Covered: one line per step that survives a crash, taking back what a resumed run will do again, the console's table.
Not covered: what the numbers are (`batch_metrics.py`, `Learner.step`, `held_out.py`).
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.sft.config import SFTConfig

METRICS = "metrics.jsonl"
COLUMNS = (
    ("reward", "reward/mean", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("kl", "mismatch_kl", ".1e"),
    ("clipped", "clipped", ".2%"),
    ("grad", "grad_norm", ".2f"),
    ("stale", "staleness/mean", ".1f"),
    ("flat", "groups/zero_variance", ".0%"),
    ("sub-calls", "sub_calls/mean", ".1f"),
    ("sub tokens", "tokens/sub_share", ".0%"),
    ("wait s", "seconds/wait", ".1f"),
    ("train s", "seconds/train", ".1f"),
    ("sync s", "seconds/sync", ".1f"),
    ("tok/s", "tokens_per_second", ",.0f"),
)
"""Of the console's table: heading, metric, format."""
HEADING_EVERY = 20


class MetricsLog:
    """The metrics of the run in `folder`; a context manager."""

    def __init__(self, folder: Path, config: TrainConfig | SFTConfig, console: Console, *, trained: int = 0) -> None:
        """`trained`: updates of later steps are taken back, since they will be made again; evaluations stay. Raises
        ConfigError where wandb is asked for and missing."""
        self.path = folder / METRICS
        self._console = console
        self._printed = 0
        kept = [line for line in read_metrics(self.path) if line["step"] <= trained or _is_evaluation(line)]
        self._steps = {(line["step"], _is_evaluation(line)) for line in kept}
        with open(self.path, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in kept)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._wandb = _start_wandb(folder, config)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()

    def evaluated(self, step: int) -> bool:
        """Whether the held-out evaluation after `step` updates is on record."""
        return (step, True) in self._steps

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl; numbers that are not finite are left out, which JSON has no word for."""
        line = {"step": step, **{key: value for key, value in values.items() if math.isfinite(value)}}
        self._steps.add((step, _is_evaluation(line)))
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(line)

    def show_step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """One row of the console's table."""
        if self._printed % HEADING_EVERY == 0:
            heads = "".join(f"{head:>{_width(head)}}" for head, _, _ in COLUMNS)
            say(self._console, f"{'step':>9}{heads}", "bold")
        cells = "".join(
            f"{format(values[key], form) if key in values else '-':>{_width(head)}}" for head, key, form in COLUMNS
        )
        say(self._console, f"{f'{step}/{steps}':>9}{cells}")
        self._printed += 1

    def show_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """One line per environment."""
        for key, mean in values.items():
            if key.startswith("eval/") and key.endswith("/score"):
                name = key.removesuffix("/score")
                interval = f"[{values[f'{name}/low']:.3f}, {values[f'{name}/high']:.3f}]"
                text = f"held out after {step} steps: {name.removeprefix('eval/')} {mean:.3f} {interval}"
                say(self._console, text, "cyan")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none where there is no file. A line that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(key.startswith("eval/") for key in line)


def _width(head: str) -> int:
    return max(len(head), 7) + 2


def _start_wandb(folder: Path, config: TrainConfig | SFTConfig) -> Any:
    if config.wandb is None:
        return None
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("wandb is asked for and not installed: pip install 'rlm-env[wandb]'") from error
    id_file = folder / "wandb-id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4))
    return wandb.init(
        project=config.wandb.project,
        entity=config.wandb.entity,
        name=config.wandb.name or folder.name,
        mode=config.wandb.mode,
        dir=str(folder),
        id=id_file.read_text(),
        resume="allow",
        config=config.as_toml(),
    )
