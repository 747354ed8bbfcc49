"""The command line: `rlm-env eval | train | report | envs`.

Covered: arguments, messages, exit codes. Not covered: the work itself (`evals/`, `train/`).
Exit codes: 0 done; 1 nothing could be scored, or the disk refused; 2 a mistake in what was asked for; 3 the engine
did not start or died; 4 stopped by --max-cost; 130 interrupted (143 by SIGTERM).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.evals.errors import ConfigError, RunStopped
from rlm_env.interrupt import Terminated, interruptible
from rlm_env.train.command import add_train

EXIT_NOTHING_SCORED, EXIT_USAGE, EXIT_MAX_COST, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 4, 130, 143
PLAIN_WIDTH = 120
"""Columns of a table that is written to a file or a pipe."""

EVAL_EXAMPLES = """\
examples:
  rlm-env eval oolong-rlm --model tiny-rlm --arms standard,rlm -n 32 -r 2
  rlm-env eval oolong-rlm --model gpt-5-mini --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY \\
      --env-option lengths=8192,65536 --max-cost 1.50 --prices prices.toml
  rlm-env eval configs/eval/quickstart.toml -n 8
  rlm-env eval outputs/NAME/config.toml --resume
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    errors = Console(stderr=True)
    try:
        return arguments.run(arguments)
    except ConfigError as error:
        _say(errors, f"error: {error}", "red")
        return EXIT_USAGE
    except KeyboardInterrupt:
        _say(errors, "interrupted")
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlm-env", description="Evaluate and train Recursive Language Models.")
    parser.add_argument("--version", action="version", version=f"rlm-env {version('rlm-env')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_eval(commands)
    add_train(commands)
    report = commands.add_parser("report", help="print the tables of a run again, from its folder")
    report.add_argument("folder", type=Path, help="for example outputs/NAME")
    report.add_argument("--markdown", action="store_true", help="as Markdown")
    report.set_defaults(run=_report)
    envs = commands.add_parser("envs", help="list the environments that were found")
    envs.set_defaults(run=_envs)
    return parser


def _add_eval(commands: Any) -> None:
    command = commands.add_parser(
        "eval",
        help="run arms on an environment's tasks and print their scores",
        description="Runs each arm on the same tasks, scores the answers, prints a table. Stores every rollout as it "
        "ends; a run that was stopped goes on with --resume.",
        epilog=EVAL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("target", metavar="ENVIRONMENT|CONFIG.toml", help="an environment's name, or a file with the same keys")
    add("--model", help="root LLM: tiny-rlm, a model folder, or a name at --base-url")
    add("--sub-model", help="sub-LLM (default: the root LLM)")
    add("--base-url", help="OpenAI-compatible endpoint; without it a local vLLM is started")
    add("--api-key-env", metavar="NAME", help="environment variable that holds the endpoint's key")
    add("--tokens", metavar="FOLDER", help="the endpoint is a vLLM that serves this model folder: exchange token ids")
    add("--arms", help="comma-separated (default: standard,rlm)")
    add("-n", type=int, help="number of tasks (default: 32)")
    add("-r", "--repeats", type=int, help="rollouts of each task in each arm; pass@k and majority from 2 on")
    add("--split", choices=("train", "eval"), help="which tasks (default: eval)")
    add("--seed", type=int, help="of the tasks and the bootstrap (default: 0)")
    add("--concurrency", type=int, metavar="N", help="most rollouts at once (default: 16)")
    add("--env-option", action="append", default=[], metavar="KEY=VALUE", help="of the environment; repeatable")
    add("--arm-option", action="append", default=[], metavar="[ARM.]KEY=VALUE", help="of RLMConfig; repeatable")
    add("--engine-option", action="append", default=[], metavar="KEY=VALUE", help="of the local vLLM; repeatable")
    add("--max-cost", type=float, metavar="USD", help="start no further rollout once this much is spent")
    add("--prices", metavar="FILE.toml", help="US dollars per million tokens, by model")
    add("--out", metavar="FOLDER", help="output folder (default: outputs/ENVIRONMENT-MODEL-TIME)")
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    command.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    from rlm_env.evals.rows import Outcome
    from rlm_env.evals.run import resume_command, run_eval

    config = _config(arguments)
    progress = Console(stderr=True)
    try:
        result = asyncio.run(interruptible(run_eval(config, progress, resume=arguments.resume)))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        _say(progress, f"\nstopped: {str(stop) or 'interrupted'}", "red")
        stored = config.out / "rollouts.jsonl"
        if stored.exists() and stored.stat().st_size:
            _say(progress, f"Finished rollouts are in {config.out}. To go on:\n  {resume_command(config.out)}")
        if isinstance(stop, RunStopped):
            return stop.exit_code
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    _print_tables(result.summary, result.title, markdown=arguments.markdown)
    _say(progress, f"stored in {result.path}")
    if result.status != "complete":
        command = f"{resume_command(result.path)} --max-cost ..."
        _say(
            progress, f"{result.status}: rollouts are left to do. To go on with a higher limit:\n  {command}", "yellow"
        )
        return EXIT_MAX_COST
    failed = all(group.outcomes[Outcome.ERROR] == group.rollouts for group in result.summary.arms)
    return EXIT_NOTHING_SCORED if failed else 0


def _config(arguments: argparse.Namespace) -> Any:
    """The config that the arguments describe. Raises ConfigError."""
    from rlm_env.evals.config import load_config, merge_options

    keys = ("model", "sub_model", "base_url", "api_key_env", "tokens", "arms", "n", "repeats", "split", "seed")
    keys += ("concurrency", "max_cost", "prices", "out")
    overrides = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    for key, options in (
        ("env_options", arguments.env_option),
        ("arm_options", arguments.arm_option),
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


def _report(arguments: argparse.Namespace) -> int:
    from rlm_env.evals.run import stored_summary

    _print_tables(*stored_summary(arguments.folder), markdown=arguments.markdown)
    return 0


def _envs(arguments: argparse.Namespace) -> int:
    from rlm_env.registry import FOLDER, environments

    found = environments()
    for name, source in sorted(found.items()):
        print(f"{name:24} {source}")
    if not found:
        print(f"none: install an environment package, or run from the folder that holds {FOLDER}/")
    return 0


def _print_tables(summary: Any, title: str, *, markdown: bool) -> None:
    from rlm_env.evals.report import markdown_report, print_report

    if markdown:
        sys.stdout.write(markdown_report(summary, title))
        return
    console = Console()
    print_report(console if console.is_terminal else Console(width=PLAIN_WIDTH), summary, title)


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Text as it is: no markup, no wrapping, so that a command can be copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
