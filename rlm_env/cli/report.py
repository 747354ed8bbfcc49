"""The command `rlm-env report`: prints the tables of a run from its folder, and those that other commands end with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_env.cli.common import add_command
from rlm_env.runs.console import PLAIN_WIDTH, standard_output
from rlm_env.runs.errors import ConfigError

if TYPE_CHECKING:
    from rlm_env.evals.matrix import MatrixResult
    from rlm_env.evals.stored import EvalResult

PLAIN_WIDTH_OF_MANY = 190
"""As `PLAIN_WIDTH`, for a table with many scaffolds."""
EXAMPLES = """\
  rlm-env report outputs/NAME
  rlm-env report outputs/NAME --markdown
  rlm-env report outputs/SEED0 outputs/SEED1 outputs/SEED2 --curve reward.png
"""


def add_report(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "report",
        summary="print the tables of a run again, from its folder",
        description="Prints the tables of evals or of training runs. Training runs that differ in their seed only are "
        "put into one table; evals are printed one after the other.",
        examples=EXAMPLES,
    )
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="the output folder of a run")
    command.add_argument("--markdown", action="store_true", help="print Markdown")
    command.add_argument("--curve", type=Path, metavar="FILE.png", help="also draw the reward curve; for training runs")
    command.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from rlm_env.train.report.metrics import METRICS

    training = [(folder / METRICS).exists() for folder in arguments.folders]
    if all(training):
        _report_training(arguments.folders, arguments.curve, markdown=arguments.markdown)
        return 0
    if arguments.curve is not None or any(training):
        raise ConfigError("--curve, and a table of several runs together, are for training runs alone")
    from rlm_env.evals.matrix import stored_result

    for folder in arguments.folders:
        print_result(stored_result(folder), markdown=arguments.markdown)
    return 0


def print_result(result: EvalResult | MatrixResult, *, markdown: bool) -> None:
    """Prints the tables of an eval."""
    from rlm_env.evals.matrix import MatrixResult
    from rlm_env.evals.matrix_report import markdown_matrix, print_matrix
    from rlm_env.evals.report import MANY_SCAFFOLDS, markdown_report, print_report

    most = max((len(summary.scaffolds) for summary in result.summaries.values()), default=0)
    console = standard_output(PLAIN_WIDTH if most <= MANY_SCAFFOLDS else PLAIN_WIDTH_OF_MANY)
    if isinstance(result, MatrixResult):
        if markdown:
            sys.stdout.write(markdown_matrix(result.summaries, result.title))
        else:
            print_matrix(console, result.summaries, result.title)
    elif markdown:
        sys.stdout.write(markdown_report(result.summary, result.title))
    else:
        print_report(console, result.summary, result.title)


def _report_training(folders: Sequence[Path], curve: Path | None, *, markdown: bool) -> None:
    """Prints one table of the runs and draws their curve if `curve` is given. Raises ConfigError on a folder without
    metrics, and without matplotlib if it is needed."""
    from rlm_env.train.report.curve import draw_curve
    from rlm_env.train.report.report import load_run, markdown_training_report, print_training_report

    runs = [load_run(folder) for folder in folders]
    if markdown:
        sys.stdout.write(markdown_training_report(runs))
    else:
        print_training_report(standard_output(), runs)
    if curve is not None:
        draw_curve(runs, curve)
