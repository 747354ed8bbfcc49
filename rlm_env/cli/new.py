"""The command `rlm-env new`: its flags, what it prints. The work is in `rlm_env/hub/new.py`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rlm_env.cli.common import add_command
from rlm_env.registry import FOLDER


def add_new(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "new",
        summary="make the package of a new environment",
        description="Writes a package that works as it is: tasks, score, tips, baselines, tests, README in the hub's "
        "shape, LICENSE, pyproject.toml with version bounds and tags. Change it into your own.",
        examples="  rlm-env new my-env\n  rlm-env new my-env --out somewhere/else\n",
    )
    add = command.add_argument
    add("name", metavar="NAME", help="the environment's name: lower-case letters, digits, hyphens")
    add("--out", type=Path, default=FOLDER, metavar="FOLDER", help=f"the folder for its folder (default: {FOLDER})")
    command.set_defaults(run=_new)


def _new(arguments: argparse.Namespace) -> int:
    from rlm_env.hub.new import make_package

    name, folder = arguments.name, make_package(arguments.name, arguments.out)
    found = arguments.out == FOLDER
    print(f"made {folder}:")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"  {path.relative_to(folder)}")
    print("\nIt works as it is. Make it yours from environment.py on; check then names what README.md, pyproject.toml,")
    print("tips.txt and the tests still say of the first question.\n\nnext:")
    if not found:
        print(f"  pip install -e {folder}")
    for command, purpose in (
        (f"rlm-env check {name}", "its answers, tasks and tools; what a REPL can reach"),
        (f"python -m pytest {folder}", "its own tests"),
        (f"rlm-env eval {name} --model tiny-rlm -n 8", "with a model"),
        (f"rlm-env validate {name}", "the wheel, installed in a fresh environment"),
        (f"rlm-env publish {name} --to index", "or hub, or hf"),
    ):
        print(f"  {command:<48} # {purpose}")
    return 0
