"""The command `rlm-env envs`: lists the environments that can be loaded by name, or shows one."""

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
        summary="list the environments that were found, or show one",
        description=f"Lists the environments of installed packages, and those in the folder {FOLDER}/, with where they "
        "come from. With a name: its options with types and defaults, its splits, its tools, the version and content "
        "hash of its package.",
        examples="  rlm-env envs\n  rlm-env envs oolong-rlm\n",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the environment to show (default: list all)")
    command.set_defaults(run=_envs)


def _envs(arguments: argparse.Namespace) -> int:
    """Prints the list, or one environment; returns the exit code."""
    if arguments.name is not None:
        from rlm_env.hub.describe import describe_environment

        print("\n".join(describe_environment(arguments.name).lines()))
        return 0
    found = environments()
    for name, source in sorted(found.items()):
        print(f"{name:24} {source}")
    if not found:
        print(f"none: install an environment package, or run from the folder that holds {FOLDER}/")
    return 0
