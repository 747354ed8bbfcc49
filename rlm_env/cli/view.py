"""The command `rlm-env view`: serves the viewer until Ctrl-C, or writes one HTML file.

The work is in `rlm_env/view/`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.cli.common import add_command, port_number
from rlm_env.runs.console import say
from rlm_env.runs.errors import ConfigError

EXAMPLES = """\
  rlm-env view outputs/NAME
  rlm-env view outputs                                   # every run in there
  rlm-env view outputs/NAME --export page.html           # one file to send to somebody
  rlm-env view outputs/NAME --export page.html --rollout rlm/eval-0-12/0
"""


def add_view(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "view",
        summary="look at the rollouts of a run in a browser",
        description="Shows evals and training runs on a page of this machine: every rollout turn by turn, its "
        "sub-calls, its tokens, what it read of its context. A run that is going on is followed. Nothing is changed "
        "and nothing leaves the machine.",
        examples=EXAMPLES,
    )
    add = command.add_argument
    add("folders", nargs="+", type=Path, metavar="RUN", help="the folder of a run, a folder of runs, or a .jsonl file")
    add("--port", type=port_number, default=0, metavar="N", help="the port (default: a free one)")
    add("--no-browser", action="store_true", help="only print the address")
    add(
        "--export",
        type=Path,
        metavar="FILE.html",
        help="write one self-contained file, and serve nothing (default: serve)",
    )
    add(
        "--rollout",
        action="append",
        default=[],
        metavar="ID",
        help="export only rollouts with this in their id; repeatable (default: all)",
    )
    command.set_defaults(run=_view)


def _view(arguments: argparse.Namespace) -> int:
    from rlm_env.view.workplace import Workplace

    if arguments.rollout and arguments.export is None:
        raise ConfigError("--rollout goes with --export; on the page, filter by text")
    workplace = Workplace(arguments.folders)
    console = Console(stderr=True)
    if arguments.export is not None:
        return _export(workplace, arguments.export, arguments.rollout, console)
    try:
        asyncio.run(_serve(workplace, arguments.port, console, browser=not arguments.no_browser))
    except OSError as error:
        raise ConfigError(f"port {arguments.port} cannot be used: {error.strerror}") from error
    except KeyboardInterrupt:
        say(console, "ended")
    return 0


def _export(workplace: Any, path: Path, wanted: list[str], console: Console) -> int:
    from rlm_env.evals.progress import counting
    from rlm_env.view.export import export_page

    with counting(console, "exporting rollouts") as report:
        count = export_page(workplace, path, wanted, report)
    say(console, f"{path}: {count:,} rollouts, {path.stat().st_size / 1e6:.1f} MB")
    return 0


async def _serve(workplace: Any, port: int, console: Console, *, browser: bool) -> None:
    from rlm_env.view.server import ViewServer

    server = ViewServer(workplace, port)
    async with server.running():
        say(console, f"{server.url}\nCtrl-C ends it.")
        if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.name == "nt"):
            await asyncio.to_thread(webbrowser.open, server.url)
        await asyncio.Event().wait()
