"""The command `rlm-env publish`: its flags, what it prints. The work is in `rlm_env/hub/publish.py`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.cli.check import EXIT_FINDINGS
from rlm_env.cli.common import add_command
from rlm_env.cli.validate import add_index_flag, index_arguments
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError

if TYPE_CHECKING:
    from rlm_env.hub.places.base import Place

PLACES = ("index", "hub", "hf")
EXAMPLES = """\
  rlm-env publish my-env --to index
  rlm-env publish my-env --to index --repository http://127.0.0.1:8080/ --index-url http://127.0.0.1:8080/simple/
  rlm-env publish my-env --to hub --owner my-team
  rlm-env publish my-env --to hf --to hub --dry-run
"""


def add_publish(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "publish",
        summary="publish an environment package: to an index, the Environments Hub, Hugging Face",
        description="Validates an environment package (see rlm-env validate) and uploads it. Refused are a version "
        "that is there already, bounds of rlm-env that no version meets there, and whatever does not validate. "
        "The package gets a hash of its content, which the record of every eval names. Logins are those of the tools: "
        "twine, prime, hf.",
        examples=EXAMPLES,
    )
    add = command.add_argument
    add("name", metavar="NAME", help="the environment's or package's name, or the folder of its pyproject.toml")
    add("--to", action="append", choices=PLACES, required=True, help="where to publish; repeatable")
    add(
        "--repository",
        metavar="URL",
        help="of --to index: where twine uploads, a URL or a name of .pypirc (default: twine's own)",
    )
    add_index_flag(command)
    add("--owner", help="of --to hub and hf: the user or team that will own it (default: whose login it is)")
    add("--private", action="store_true", help="of --to hub and hf: visible to its owner alone")
    add("--dry-run", action="store_true", help="validate and ask the places, upload nothing")
    command.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace) -> int:
    from rlm_env.hub.project import find_project
    from rlm_env.hub.tools import MODULES, require_modules

    _check_flags(arguments)
    project = find_project(arguments.name)
    require_modules(*MODULES)
    from rlm_env.hub.publish import publish

    progress = Console(stderr=True)
    places = [_place(name, arguments) for name in dict.fromkeys(arguments.to)]
    with tempfile.TemporaryDirectory(prefix="rlm-env-publish-") as folder:
        published = publish(
            project,
            places,
            Path(folder),
            lambda text: say(progress, text),
            index_arguments(arguments),
            dry_run=arguments.dry_run,
        )
    print("\n".join(published.findings.lines()))
    for name, lines in published.said.items():
        print(f"published to {name}")
        print("\n".join(f"  {line}" for line in lines))
    for name, why in published.failed.items():
        print(f"NOT published to {name}: {why}")
    if arguments.dry_run and published.ok:
        print("dry run: nothing was uploaded")
    return 0 if published.ok else EXIT_FINDINGS


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for a flag that none of the places takes."""
    for flag, given, places in (
        ("--repository", arguments.repository, ("index",)),
        ("--owner", arguments.owner, ("hub", "hf")),
        ("--private", arguments.private, ("hub", "hf")),
    ):
        if given and not set(places) & set(arguments.to):
            raise ConfigError(f"{flag} is of --to {' and '.join(places)}, not of --to {', '.join(arguments.to)}")


def _place(name: str, arguments: argparse.Namespace) -> Place:
    from rlm_env.hub.places.environments_hub import EnvironmentsHub
    from rlm_env.hub.places.hugging_face import HuggingFace
    from rlm_env.hub.places.package_index import PackageIndex

    if name == "index":
        return PackageIndex(arguments.repository, arguments.index_url)
    kind = EnvironmentsHub if name == "hub" else HuggingFace
    return kind(arguments.owner, private=arguments.private)
