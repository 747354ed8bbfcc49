"""The command `rlm-env eval`: arguments, messages, exit codes; and what `rlm-env report` prints of an eval.

Covered: one environment and a matrix of several alike. Not covered: the work itself (`run.py`, `matrix.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.runs.console import PLAIN_WIDTH, say, say_stopped, standard_output
from rlm_env.runs.errors import RunStopped
from rlm_env.runs.interrupt import Terminated, interruptible

EXIT_NOTHING_SCORED, EXIT_MAX_COST = 1, 4
PLAIN_WIDTH_OF_MANY = 190
"""As `PLAIN_WIDTH`, for a table with many scaffolds."""

EXAMPLES = """\
examples:
  rlm-env eval oolong-rlm --model tiny-rlm --scaffolds standard,rlm -n 32 -r 2
  rlm-env eval oolong-rlm --model gpt-5-mini --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY \\
      --env-option lengths=8192,65536 --max-cost 1.50 --prices prices.toml
  rlm-env eval configs/eval/quickstart.toml -n 8
  rlm-env eval configs/eval/matrix_tiny.toml
  rlm-env eval outputs/NAME/config.toml --resume
"""


def add_eval(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = commands.add_parser(
        "eval",
        help="run scaffolds on the tasks of one environment or several and print their scores",
        description="Runs each scaffold on the same tasks, scores the answers, prints a table. Stores every rollout as it "
        "ends; a run that was stopped goes on with --resume.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("target", metavar="ENVIRONMENT|CONFIG.toml", help="an environment's name, or a file: one run or a matrix")
    add("--model", help="root LLM: tiny-rlm, a model folder, or a name at --base-url")
    add("--sub-model", help="sub-LLM (default: the root LLM)")
    add("--base-url", help="OpenAI-compatible endpoint; without it a local vLLM is started")
    add("--api-key-env", metavar="NAME", help="environment variable that holds the endpoint's key")
    add("--tokens", metavar="FOLDER", help="the endpoint is a vLLM that serves this model folder: exchange token ids")
    add("--scaffolds", help="comma-separated (default: standard,rlm)")
    add("-n", type=int, help="number of tasks (default: 32)")
    add("-r", "--repeats", type=int, help="rollouts of each task in each scaffold; pass@k and majority from 2 on")
    add("--split", choices=("train", "eval"), help="which tasks (default: eval)")
    add("--seed", type=int, help="of the tasks and the bootstrap (default: 0)")
    add("--concurrency", type=int, metavar="N", help="most rollouts at once (default: 16)")
    add("--env-option", action="append", default=[], metavar="KEY=VALUE", help="of the environment; repeatable")
    add("--scaffold-option", action="append", default=[], metavar="[ARM.]KEY=VALUE", help="of RLMConfig; repeatable")
    add("--engine-option", action="append", default=[], metavar="KEY=VALUE", help="of the local vLLM; repeatable")
    add("--max-cost", type=float, metavar="USD", help="start no further rollout once this much is spent")
    add("--prices", metavar="FILE.toml", help="US dollars per million tokens, by model")
    add("--out", metavar="FOLDER", help="output folder (default: outputs/ENVIRONMENT-MODEL-TIME)")
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    command.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    from rlm_env.evals.config import MatrixConfig
    from rlm_env.evals.matrix import run_matrix
    from rlm_env.evals.outcomes import Outcome
    from rlm_env.evals.run import resume_command, run_eval

    config = _config(arguments)
    progress = Console(stderr=True)
    several = isinstance(config, MatrixConfig)
    work = run_matrix if several else run_eval
    try:
        result = asyncio.run(interruptible(work(config, progress, resume=arguments.resume)))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        exit_code = say_stopped(progress, stop)
        if any(path.stat().st_size for path in config.out.glob("**/rollouts.jsonl")):
            say(progress, f"Finished rollouts are in {config.out}. To go on:\n  {resume_command(config.out)}")
        return exit_code
    if several:
        _print_matrix(result.summaries, result.title, markdown=arguments.markdown)
    else:
        _print_run(result.summary, result.title, markdown=arguments.markdown)
    say(progress, f"stored in {result.path}")
    if result.status != "complete":
        command = f"{resume_command(result.path)} --max-cost ..."
        say(progress, f"{result.status}: rollouts are left to do. To go on with a higher limit:\n  {command}", "yellow")
        return EXIT_MAX_COST
    summaries = list(result.summaries.values()) if several else [result.summary]
    failed = all(g.outcomes[Outcome.ERROR] == g.rollouts for summary in summaries for g in summary.scaffolds)
    return EXIT_NOTHING_SCORED if failed else 0


def _config(arguments: argparse.Namespace) -> Any:
    """The config that the arguments describe. Raises ConfigError."""
    from rlm_env.evals.config import load_config
    from rlm_env.runs.config import merge_options

    keys = ("model", "sub_model", "base_url", "api_key_env", "tokens", "scaffolds", "n", "repeats", "split", "seed")
    keys += ("concurrency", "max_cost", "prices", "out")
    overrides = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    for key, options in (
        ("env_options", arguments.env_option),
        ("scaffold_options", arguments.scaffold_option),
        ("engine_options", arguments.engine_option),
    ):
        if options:
            overrides[key] = merge_options(options)
    file = None
    if arguments.target.endswith(".toml"):
        file = Path(arguments.target)
    else:
        overrides["environment"] = arguments.target
    default_out = None if arguments.resume else datetime.now().strftime("%Y%m%d-%H%M%S")
    return load_config(file, overrides, default_out)


def report_eval(folder: Path, *, markdown: bool) -> None:
    """Prints the tables of a run that is on disk again. Raises ConfigError where there is none."""
    from rlm_env.evals.matrix import is_matrix, stored_matrix
    from rlm_env.evals.run import stored_summary

    if is_matrix(folder):
        _print_matrix(*stored_matrix(folder), markdown=markdown)
    else:
        _print_run(*stored_summary(folder), markdown=markdown)


def _print_run(summary: Any, title: str, *, markdown: bool) -> None:
    from rlm_env.evals.report import markdown_report, print_report

    if markdown:
        sys.stdout.write(markdown_report(summary, title))
    else:
        print_report(_stdout(len(summary.scaffolds)), summary, title)


def _print_matrix(summaries: Any, title: str, *, markdown: bool) -> None:
    from rlm_env.evals.matrix_report import markdown_matrix, print_matrix

    if markdown:
        sys.stdout.write(markdown_matrix(summaries, title))
    else:
        print_matrix(
            _stdout(max((len(summary.scaffolds) for summary in summaries.values()), default=0)), summaries, title
        )


def _stdout(scaffolds: int) -> Console:
    from rlm_env.evals.report import MANY_SCAFFOLDS

    return standard_output(PLAIN_WIDTH if scaffolds <= MANY_SCAFFOLDS else PLAIN_WIDTH_OF_MANY)
