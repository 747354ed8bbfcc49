"""The commands that a proof consists of, each of which makes one folder, and what those folders hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rlm_env.rollout import Rollout, read_rollouts

CONFIG = "configs/train/tiny.toml"


@dataclass(frozen=True, slots=True)
class Work:
    """One command that makes one folder."""

    part: str
    name: str
    command: tuple[str, ...]
    done: Callable[[], bool]
    resumable: bool = True


def training(part: str, out: Path, name: str, seed: int, *settings: str, config: str = CONFIG) -> Work:
    """A run of `rlm-env train` with settings over those of the config file."""
    folder = out / name
    command = ["-m", "rlm_env.cli", "train", config, "--seed", str(seed), "--out", str(folder)]
    return Work(part, name, (*command, *_set(settings)), lambda: status(folder) == "complete")


def evaluation(
    part: str, out: Path, name: str, environment: str, model: str, n: int, *settings: str, scaffolds: str = "rlm"
) -> Work:
    """A run of `rlm-env eval` on one environment."""
    folder = out / name
    command = ["-m", "rlm_env.cli", "eval", environment, "--model", model, "--scaffolds", scaffolds, "-n", str(n)]
    words = (*command, *_set(settings), "--out", str(folder))
    return Work(part, name, words, lambda: status(folder) == "complete")


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def make(work: Work, out: Path) -> None:
    """Runs the command, or goes on where it was stopped."""
    begun = work.resumable and (out / work.name / "config.toml").exists()
    command = [sys.executable, *work.command, *(["--resume"] if begun else [])]
    print(f"== {work.name}: {' '.join(command)}", file=sys.stderr, flush=True)
    subprocess.run(command, check=True)


def status(folder: Path) -> str | None:
    """`complete`, or why a run ended before its end; None where there is none that has ended."""
    summary = folder / "summary.json"
    return json.loads(summary.read_text())["status"] if summary.exists() else None


def held_out(folder: Path, step: float) -> Iterable[Rollout]:
    """The scored rollouts of a training run's evaluation after so many steps."""
    for rollout in read_rollouts(folder / "held_out.jsonl"):
        if rollout.group is not None and rollout.group.step == step and rollout.score is not None:
            yield rollout


def minutes(lines: Iterable[dict[str, Any]]) -> float:
    """Of a training run's metrics."""
    return sum(line.get("seconds/step", 0.0) + line.get("seconds/eval", 0.0) for line in lines) / 60


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
