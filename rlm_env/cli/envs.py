"""The command `rlm-env envs`: lists the environments that can be loaded by name."""

from __future__ import annotations

import argparse
from typing import Any

from rlm_env.cli.common import add_command
from rlm_env.registry import FOLDER, environments


def add_envs(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "envs",
        summary="list the environments that were found",
        description=f"Lists the environments of installed packages, and those in the folder {FOLDER}/, with where they "
        "come from.",
        examples="  rlm-env envs\n",
    )
    command.set_defaults(run=_envs)


def _envs(arguments: argparse.Namespace) -> int:
    """Prints the list; returns the exit code."""
    found = environments()
    for name, source in sorted(found.items()):
        print(f"{name:24} {source}")
    if not found:
        print(f"none: install an environment package, or run from the folder that holds {FOLDER}/")
    return 0
