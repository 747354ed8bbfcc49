"""What `rlm-env report` shows of training runs, and what `rlm-env train` and `rlm-env sft` end with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rlm_env.runs.console import say, standard_output
from rlm_env.runs.errors import ConfigError
from rlm_env.train.report.curve import CURVE, draw_curve
from rlm_env.train.report.metrics import METRICS
from rlm_env.train.report.report import load_run, markdown_training_report, print_training_report


def is_training_run(folder: Path) -> bool:
    return (folder / METRICS).exists()


def report_training(folders: Sequence[Path], curve: Path | None, *, markdown: bool) -> None:
    """Prints the table of one run, or of several seeds of it together, and draws the curve where `curve` is given.
    Raises ConfigError on a folder without metrics, and without matplotlib where it is needed."""
    runs = [load_run(folder) for folder in folders]
    if markdown:
        sys.stdout.write(markdown_training_report(runs))
    else:
        print_training_report(standard_output(), runs)
    if curve is not None:
        draw_curve(runs, curve)


def conclude(folder: Path, console: Console) -> None:
    """The table of a run that has ended, and its curve as reward.png in its folder; without matplotlib, what is
    missing for it."""
    run = load_run(folder)
    print_training_report(console, [run])
    try:
        text = f"curve: {draw_curve([run], folder / CURVE)}"
    except ConfigError as error:
        text = f"no curve: {error}"
    say(console, text)
