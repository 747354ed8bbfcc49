"""The command `rlm-env validate`: its flags, what it prints. The work is in `rlm_env/hub/validate.py`."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.cli.check import EXIT_FINDINGS
from rlm_env.cli.common import add_command
from rlm_env.runs.console import say


def add_validate(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "validate",
        summary="build an environment package, install it in a fresh virtual environment, check and evaluate it there",
        description="Validates a package as strangers get it: metadata, license and README; wheel and source archive; "
        "installed in a fresh virtual environment, loaded by name, checked, two tasks evaluated with a model that "
        "knows the answers. Says what the Environments Hub makes of its requirements. Takes a minute or two. Exit "
        "code 1 where something is found; every finding names its remedy.",
        examples="  rlm-env validate my-env\n  rlm-env validate path/to/project --out dist\n",
    )
    add = command.add_argument
    add("name", metavar="NAME", help="the environment's or package's name, or the folder of its pyproject.toml")
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep wheel and source archive in this folder (default: they are not kept)",
    )
    add_index_flag(command)
    add("--json", action="store_true", help="print the findings as JSON")
    command.set_defaults(run=_validate)


def add_index_flag(command: argparse.ArgumentParser) -> None:
    """The flag `--index-url`."""
    command.add_argument(
        "--index-url", metavar="URL", help="the package index that pip asks first (default: as pip is configured)"
    )


def index_arguments(arguments: argparse.Namespace) -> list[str]:
    """Arguments of pip: the given index first, the configured ones for what it does not have."""
    return [] if arguments.index_url is None else ["--extra-index-url", arguments.index_url]


def _validate(arguments: argparse.Namespace) -> int:
    from rlm_env.hub.project import find_project
    from rlm_env.hub.tools import MODULES, require_modules

    project = find_project(arguments.name)
    require_modules(*MODULES)
    from rlm_env.hub.validate import validate

    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="rlm-env-validate-") as folder:
        validated = validate(project, Path(folder), lambda text: say(progress, text), index_arguments(arguments))
        if arguments.json:
            told = {**validated.findings.to_dict(), "content_sha256": validated.sha256, "hub": validated.hub_class}
            print(json.dumps(told, indent=2))
        else:
            print("\n".join(validated.lines()))
        if arguments.out is not None and validated.built is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for path in (validated.built.wheel, validated.built.archive):
                shutil.copy(path, arguments.out)
    return 0 if validated.findings.ok else EXIT_FINDINGS
