"""The command `rlm-env`: finds the command, and says what is wrong with what was asked for.

Each command is a file of this folder. Exit codes are listed in `common.py` and by `rlm-env --help`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console

from rlm_env.cli.common import EXIT_CODES, HelpFormatter
from rlm_env.cli.envs import add_envs
from rlm_env.cli.eval import add_eval
from rlm_env.cli.report import add_report
from rlm_env.cli.score import add_score
from rlm_env.cli.sft import add_sft
from rlm_env.cli.train import add_train
from rlm_env.rollout import RecordError
from rlm_env.runs.console import EXIT_INTERRUPTED, say
from rlm_env.runs.errors import ConfigError

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    errors = Console(stderr=True)
    try:
        return arguments.run(arguments)
    except (ConfigError, RecordError) as error:
        say(errors, f"error: {error}", "red")
        return EXIT_USAGE
    except KeyboardInterrupt:
        say(errors, "interrupted")
        return EXIT_INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="rlm-env",
        description="Evaluate and train Recursive Language Models.",
        epilog=EXIT_CODES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rlm-env {version('rlm-env')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_eval, add_score, add_train, add_sft, add_report, add_envs):
        add(commands)
    return parser
