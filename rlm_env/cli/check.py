"""The command `rlm-env check`: its flags, what it prints. The work is in `rlm_env/hub/check.py`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from typing import Any

from rlm_env.cli.common import add_command, add_set_flag, overrides
from rlm_env.runs.errors import ConfigError

EXAMPLES = """\
  rlm-env check my-env
  rlm-env check oolong-rlm --set options.lengths=512,4096
  rlm-env check deepdive-rlm --judge --set options.judge.model=gpt-5-mini --json
"""
EXIT_FINDINGS = 1


def add_check(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "check",
        summary="check an environment in seconds: answers, tasks, tools, what a REPL can reach",
        description="Checks an environment: the perfect answer scores 1, the empty one 0, another task's less than 1; "
        "ids are unique, splits apart, tools documented, baselines there; another process makes the same tasks; no "
        "right answer can be reached from the REPL; and nothing is left of what `rlm-env new` wrote about its own task "
        "once another question is asked. Exit code 1 where something is found; every finding names its remedy. Rules "
        "that a package allows, with a reason, stand in its pyproject.toml, [tool.rlm-env.check.allow].",
        examples=EXAMPLES,
    )
    add = command.add_argument
    add("name", metavar="NAME", help="the environment's or package's name, or the folder of its pyproject.toml")
    add("-n", "--tasks", type=int, default=20, metavar="N", help="tasks of each split that are checked (default: 20)")
    add("--seed", type=int, default=0, metavar="N", help="the seed of the tasks (default: 0)")
    add("--judge", action="store_true", help="also ask the environment's judge, which may cost money")
    add(
        "--json",
        action="store_true",
        help="print the findings as JSON; a list where a package has several environments",
    )
    add_set_flag(command, "options.lengths=512")
    command.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from rlm_env.hub.check import CheckRequest, check_environment
    from rlm_env.hub.project import environment_names

    if arguments.tasks < 2:
        raise ConfigError(f"--tasks must be at least 2, so that answers can be compared; got {arguments.tasks}")
    options = environment_flags(arguments)
    checked = []
    for name in environment_names(arguments.name):
        request = CheckRequest(name, options, tasks=arguments.tasks, seed=arguments.seed, judge=arguments.judge)
        with contextlib.redirect_stdout(sys.stderr):  # what the environment prints is no part of the findings
            checked.append(asyncio.run(check_environment(request)))
        if not arguments.json:
            print("\n".join(checked[-1].lines()))
    if arguments.json:
        told = [findings.to_dict() for findings in checked]
        print(json.dumps(told[0] if len(told) == 1 else told, indent=2))
    return 0 if all(findings.ok for findings in checked) else EXIT_FINDINGS


def environment_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of an environment that `--set options.KEY=VALUE` gives. Raises ConfigError for any other key."""
    given = overrides(arguments, ())
    options = given.pop("options", {})
    if given or not isinstance(options, dict):
        raise ConfigError(f"--set {next(iter(given), 'options')}: only options.KEY can be set here")
    if "seed" in options:
        raise ConfigError("--set options.seed: the seed is given by --seed")
    return options
