"""The command `rlm-env score`: its flags, what it prints, how it ends. The work is in `rlm_env/evals/score.py`."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.cli.common import add_command, add_set_flag, end_stopped, overrides
from rlm_env.cli.eval import exit_code
from rlm_env.cli.report import print_result
from rlm_env.runs.console import say
from rlm_env.runs.errors import RunStopped
from rlm_env.runs.interrupt import Terminated, interruptible

EXAMPLES = """\
  rlm-env score outputs/NAME
  rlm-env score outputs/NAME --missing
  rlm-env score outputs/NAME --set options.judge_mode=official --out outputs/NAME-official
  rlm-env score outputs/NAME --set options.judge.model=gpt-5-mini
"""


def add_score(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "score",
        summary="score the stored rollouts of an eval again, without an engine",
        description="Scores the answers that are stored in the folder of an eval: after a mistake in a scorer was "
        "mended, with other options of the environment, or with another judge. Nothing is sampled. Scores, "
        "results.jsonl and summary.json are replaced when all rollouts are scored; if it is interrupted, the same "
        "command goes on.",
        examples=EXAMPLES,
    )
    add = command.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the output folder of an eval")
    add_set_flag(command, "options.judge_mode=official")
    add("--missing", action="store_true", help="only the rollouts that have no score, because scorer or judge failed")
    add("--ask-judge", action="store_true", help="ask the judge again also where its verdict is stored")
    add("--out", type=Path, metavar="FOLDER", help="score a copy in this folder (default: replace the scores)")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    command.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from rlm_env.evals.score import score_eval

    progress = Console(stderr=True)
    work = score_eval(
        arguments.folder,
        overrides(arguments, ()),
        progress,
        missing=arguments.missing,
        ask_judge=arguments.ask_judge,
        out=arguments.out,
    )
    try:
        result = asyncio.run(interruptible(work))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        again = ["rlm-env", "score", str(arguments.out or arguments.folder)]
        again += [part for text in arguments.set for part in ("--set", text)]
        again += ["--missing"] * arguments.missing + ["--ask-judge"] * arguments.ask_judge
        return end_stopped(progress, stop, shlex.join(again))
    print_result(result, markdown=arguments.markdown)
    say(progress, f"stored in {result.path}")
    return exit_code(result)
