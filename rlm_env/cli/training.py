"""Shared by the commands `train` and `sft`: missing packages, how a training ends, and what is printed then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from rlm_env.cli.common import end_stopped, needed_packages
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import Terminated


def training_packages() -> AbstractContextManager[None]:
    """`needed_packages` of every kind of training."""
    return needed_packages("training", "train")


def run_training(train: Callable[[], Path | None], folder: Path, resume: str, console: Console) -> int:
    """Trains, into `folder`; returns the exit code. At the end the run's table is printed, or if it was stopped, why
    and how to go on (`resume`). `train` returns the trained model's folder, None on all processes but the first."""
    try:
        model = train()
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        return end_stopped(console, stop, resume)
    if model is not None:
        conclude_training(folder, model, console)
    return 0


def conclude_training(folder: Path, model: Path, console: Console) -> None:
    """Prints the table of a training run that has ended, and draws its curve into its folder if matplotlib is
    installed."""
    from rlm_env.train.report.curve import CURVE, draw_curve
    from rlm_env.train.report.report import load_run, print_training_report

    run = load_run(folder)
    print_training_report(console, [run])
    try:
        text = f"curve: {draw_curve([run], folder / CURVE)}"
    except ConfigError as error:
        text = f"no curve: {error}"
    say(console, text)
    say(console, f"the trained model is in {model}")
