"""The command `rlm-env`: finds the command, and says what is wrong with what was asked for.

Each command is a file of this folder. Exit codes are listed in `common.py` and by `rlm-env --help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from rlm_env import __version__
from rlm_env.cli.ask import add_ask
from rlm_env.cli.check import add_check
from rlm_env.cli.common import EXIT_CODES, HelpFormatter
from rlm_env.cli.envs import add_envs
from rlm_env.cli.eval import add_eval
from rlm_env.cli.export import add_export
from rlm_env.cli.new import add_new
from rlm_env.cli.publish import add_publish
from rlm_env.cli.report import add_report
from rlm_env.cli.score import add_score
from rlm_env.cli.serve import add_serve
from rlm_env.cli.sft import add_sft
from rlm_env.cli.show import add_show
from rlm_env.cli.train import add_train
from rlm_env.cli.validate import add_validate
from rlm_env.cli.view import add_view
from rlm_env.rollout import RecordError
from rlm_env.runs.console import EXIT_INTERRUPTED, say, say_stopped
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.spelling import near_matches

EXIT_USAGE = 2
COMMANDS = (
    add_eval,
    add_ask,
    add_serve,
    add_score,
    add_train,
    add_sft,
    add_report,
    add_show,
    add_view,
    add_export,
    add_envs,
    add_new,
    add_check,
    add_validate,
    add_publish,
)
"""In the order of `rlm-env --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    errors, parser = Console(stderr=True), make_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        say(errors, f"error: {unknown_options(unknown, arguments.options)}", "red")
        return EXIT_USAGE
    try:
        return arguments.run(arguments)
    except (ConfigError, RecordError) as error:
        say(errors, f"error: {error}", "red")
        return EXIT_USAGE
    except RunStopped as stop:
        return say_stopped(errors, stop)
    except OSError as error:
        if error.filename is None:
            raise
        say(errors, f"error: {error.filename}: {error.strerror}", "red")
        return EXIT_USAGE
    except KeyboardInterrupt:
        say(errors, "interrupted")
        return EXIT_INTERRUPTED


def unknown_options(unknown: Sequence[str], known: Sequence[str]) -> str:
    """What is said of arguments that a command does not have."""
    options = [text.partition("=")[0] for text in unknown if text.startswith("-")]
    if not options:
        return f"unexpected arguments: {' '.join(unknown)}"
    return "; ".join(f"unknown option {option}{near_matches(option, known)}" for option in options)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="rlm-env",
        description="Evaluate and train Recursive Language Models.",
        epilog=f"rlm-env COMMAND --help shows its flags, with examples.\n\n{EXIT_CODES}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlm-env {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    for command in commands.choices.values():
        command.set_defaults(options=sorted(text for text in command._option_string_actions if text.startswith("--")))
    return parser
