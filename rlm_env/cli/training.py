"""Shared by the commands `train` and `sft`: missing packages, how a training ends, and what is printed then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from rlm_env.cli.common import end_stopped
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import Terminated


@contextlib.contextmanager
def training_packages() -> Iterator[None]:
    """Turns the import of a package that is not installed into ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "rlm_env":
            raise
        raise ConfigError(f"training needs the package {error.name!r}: pip install 'rlm-env[train]'") from error


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
