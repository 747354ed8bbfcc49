"""The command `rlm-env show`: prints a rollout of a run turn by turn."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.cli.common import add_command
from rlm_env.runs.console import say, say_note, standard_output
from rlm_env.runs.errors import ConfigError
from rlm_env.spelling import near_matches

if TYPE_CHECKING:
    from rlm_env.rollout import Rollout
    from rlm_env.view.index import RolloutIndex

OTHERS = 10
"""Other rollouts that are named behind what is shown."""
EXAMPLES = """\
  rlm-env show outputs/NAME                     # the first rollout
  rlm-env show outputs/NAME rlm/eval-0-12/0     # or a part of the id
  rlm-env show outputs/NAME --failed            # the one that went worst
  rlm-env show outputs first/rlm/eval-0-12/0    # of a folder of runs: their names stand before the ids
  rlm-env show outputs/NAME --failed --lines 0 | less -R
"""


def add_show(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "show",
        summary="print a rollout of a run, turn by turn",
        description="Prints a rollout readably: question, answer and verdict, then each turn with its thoughts, code, "
        "sub-calls and output. In a browser: rlm-env view.",
        examples=EXAMPLES,
    )
    add = command.add_argument
    add("folder", type=Path, metavar="RUN", help="the folder of a run or of several, or a .jsonl file of rollouts")
    add("rollout", nargs="?", metavar="ROLLOUT", help="its id or a part of it (default: the first)")
    add("--failed", action="store_true", help="only rollouts below the full score: errors first, then the lowest score")
    add("-n", "--count", dest="n", type=int, default=1, metavar="N", help="how many rollouts (default: 1)")
    add("--lines", type=int, default=24, metavar="N", help="most lines of one text; 0: all (default: 24)")
    command.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    from rlm_env.view.workplace import Workplace

    found: list[tuple[RolloutIndex, int, str]] = []
    runs = Workplace([arguments.folder]).runs()
    for run in runs:
        run.refresh()
        before = f"{run.name}/" if len(runs) > 1 else ""  # rollouts of two runs may have one id
        found += [(source, number, before + key) for source in run.sources for key, number in source.lines.items()]
    if not found:
        raise ConfigError(f"{arguments.folder} holds no rollout yet")
    if arguments.failed:
        found = [one for one in sorted(found, key=_order) if _badness(one) < 1.0]
        if not found:
            say(Console(stderr=True), "every rollout has the full score")
            return 0
    chosen = found if arguments.rollout is None else _named(found, arguments.rollout)
    console = standard_output()
    for source, number, key in chosen[: arguments.n]:
        if len(runs) > 1:
            say(console, key, "bold")
        whole_rollout(source, number).show(console, lines=arguments.lines)
    _name_others([key for _, _, key in chosen[arguments.n :]], arguments)
    return 0


def _badness(one: tuple[RolloutIndex, int, str]) -> float:
    score = one[0].stats[one[1]].score
    return -1.0 if score is None else score


def _order(one: tuple[RolloutIndex, int, str]) -> tuple[float, bool]:
    """The worst first; of equally bad ones those without a turn last, such as an overflow: there is nothing to see."""
    return _badness(one), one[0].stats[one[1]].turns == 0


def _named(found: list[tuple[RolloutIndex, int, str]], name: str) -> list[tuple[RolloutIndex, int, str]]:
    exact = [one for one in found if one[2] == name]
    matching = exact or [one for one in found if name in one[2]]
    if not matching:
        keys = [key for _, _, key in found]
        raise ConfigError(f"no rollout has {name!r} in its id{near_matches(name, keys, listing=False)}")
    return matching


def whole_rollout(source: RolloutIndex, number: int) -> Rollout:
    """A rollout with its prompts; without what they quote of the context where that is gone."""
    from rlm_env.contexts import CONTEXTS, ContextStore
    from rlm_env.evals.outline import outline
    from rlm_env.rollout import RecordError, Rollout

    line = source.line(number)
    try:
        return Rollout.from_json(line, ContextStore(source.path.parent / CONTEXTS))
    except RecordError as error:
        say_note(Console(stderr=True), f"shown without prompts and outputs: {error}")
        return outline(line)


def _name_others(keys: list[str], arguments: argparse.Namespace) -> None:
    if not keys:
        return
    errors = Console(stderr=True)
    command = shlex.join(["rlm-env", "show", str(arguments.folder)])
    say(errors, f"{len(keys):,} more{' below the full score' if arguments.failed else ''}: {command} ID", "dim")
    say(errors, "  " + "  ".join(keys[:OTHERS]) + ("  ..." if len(keys) > OTHERS else ""), "dim")
