"""The command line: `rlm-env eval | train | sft | report | envs`.

Covered: finding the command, mistakes in what was asked for. Not covered: the commands (`evals/command.py`,
`train/command.py`).
Exit codes: 0 done; 1 nothing could be scored, or the disk refused; 2 a mistake in what was asked for; 3 the engine
did not start or died; 4 stopped by --max-cost; 130 interrupted (143 by SIGTERM).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from rlm_env.cli.eval import add_eval, report_eval
from rlm_env.cli.sft import add_sft
from rlm_env.cli.train import add_train
from rlm_env.runs.console import EXIT_INTERRUPTED, say
from rlm_env.runs.errors import ConfigError

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    errors = Console(stderr=True)
    try:
        return arguments.run(arguments)
    except ConfigError as error:
        say(errors, f"error: {error}", "red")
        return EXIT_USAGE
    except KeyboardInterrupt:
        say(errors, "interrupted")
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlm-env", description="Evaluate and train Recursive Language Models.")
    parser.add_argument("--version", action="version", version=f"rlm-env {version('rlm-env')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_eval(commands)
    add_train(commands)
    add_sft(commands)
    report = commands.add_parser("report", help="print the tables of a run again, from its folder")
    report.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="outputs/NAME; seeds of a training: all"
    )
    report.add_argument("--markdown", action="store_true", help="as Markdown")
    report.add_argument("--curve", type=Path, metavar="FILE.png", help="of training runs: draw the reward curve too")
    report.set_defaults(run=_report)
    envs = commands.add_parser("envs", help="list the environments that were found")
    envs.set_defaults(run=_envs)
    return parser


def _report(arguments: argparse.Namespace) -> int:
    from rlm_env.cli.train_report import is_training_run, report_training

    if all(map(is_training_run, arguments.folders)):
        report_training(arguments.folders, arguments.curve, markdown=arguments.markdown)
        return 0
    if arguments.curve is not None or any(map(is_training_run, arguments.folders)):
        raise ConfigError("--curve, and a table of several runs together, are for training runs alone")
    for folder in arguments.folders:
        report_eval(folder, markdown=arguments.markdown)
    return 0


def _envs(arguments: argparse.Namespace) -> int:
    from rlm_env.registry import FOLDER, environments

    found = environments()
    for name, source in sorted(found.items()):
        print(f"{name:24} {source}")
    if not found:
        print(f"none: install an environment package, or run from the folder that holds {FOLDER}/")
    return 0
