"""The command `rlm-env eval`: its flags, what it prints, how it ends. The work is in `rlm_env/evals/`."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.cli.common import (
    ENGINE_FLAGS,
    JUDGE_FLAGS,
    add_command,
    add_engine_flags,
    add_judge_flags,
    add_run_flags,
    end_stopped,
    overrides,
    resume_command,
    set_keys,
)
from rlm_env.cli.report import PLAIN_WIDTH_OF_MANY, print_result
from rlm_env.evals.config import EXAMPLE, EvalConfig, load_eval_config
from rlm_env.evals.outcomes import Outcome
from rlm_env.registry import entry_of
from rlm_env.runs.console import say, standard_output
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import Terminated, interruptible
from rlm_env.scaffolds import SCAFFOLDS

if TYPE_CHECKING:
    from rlm_env.evals.matrix import MatrixResult
    from rlm_env.evals.stored import EvalResult

EXIT_NOTHING_SCORED, EXIT_MAX_COST = 1, 4
EXAMPLES = f"""\
  {EXAMPLE} --scaffolds standard,rlm --tasks 32 --repeats 2
  {EXAMPLE} --set options.lengths=512,4096 --set rollout.max_turns=8 \\
      --set rollout.rlm.max_turns=6 --set engine.max_model_len=2048
  rlm-env eval oolong-rlm --model gpt-5-mini --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY \\
      --max-cost 1.50 --prices prices.toml
  rlm-env eval oolong-rlm --model gpt-5 --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY \\
      --sub-model Qwen/Qwen3-4B --sub-base-url local
  {EXAMPLE} --tasks 500 --until 'rlm>standard'
  rlm-env eval configs/eval/quickstart.toml --tasks 8
  rlm-env eval outputs/NAME/config.toml --resume
"""
FLAGS = (*ENGINE_FLAGS, *JUDGE_FLAGS, "scaffolds", "n", "repeats", "split", "seed")
FLAGS += ("until", "concurrency", "max_cost", "out", "baselines", "judge_baselines")


def add_eval(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "eval",
        summary="run scaffolds on the tasks of one environment or several, and print their scores",
        description="Runs each scaffold on the same tasks, scores the answers and prints a table. Every rollout is "
        "stored when it ends; a run that was stopped goes on with --resume.",
        examples=EXAMPLES,
        keys=set_keys(EvalConfig, "docs/evaluating-options.md"),
    )
    add = command.add_argument
    add("target", metavar="ENVIRONMENT|CONFIG.toml", help="the name of an environment (see rlm-env envs), or a config")
    add_engine_flags(command)
    add_judge_flags(command)
    add = command.add_argument_group("tasks").add_argument
    add(
        "--scaffolds",
        metavar="NAMES",
        help=f"scaffolds to run, separated by commas; the others are compared with the first. Choices: "
        f"{', '.join(SCAFFOLDS)} (default: {','.join(_default('scaffolds'))})",
    )
    add("-n", "--tasks", dest="n", type=int, metavar="N", help=f"number of tasks (default: {_default('n')})")
    add(
        "-r",
        "--repeats",
        type=int,
        metavar="N",
        help=f"rollouts of each task in each scaffold; from 2 on, pass@k and the majority vote are reported too "
        f"(default: {_default('repeats')})",
    )
    add(
        "--until",
        action="append",
        metavar="'A>B'",
        help="stop before all tasks once a test that may be looked at after every task has decided between the "
        "scaffolds A and B, for either of them, for example 'rlm>standard' (in quotes); repeatable, or with commas",
    )
    add("--split", choices=("train", "eval"), help=f"the split that tasks come from (default: {_default('split')})")
    add("--seed", type=int, metavar="N", help=f"seed of the tasks and the bootstrap (default: {_default('seed')})")
    add("--concurrency", type=int, metavar="N", help=f"most rollouts at once (default: {_default('concurrency')})")
    add = command.add_argument_group("money").add_argument
    add(
        "--dry-run",
        action="store_true",
        help="ask no model and write nothing: check what was asked for, and estimate calls, tokens, seconds and money "
        "from the rollouts in the output folder, if there are any",
    )
    add(
        "--pilot",
        type=int,
        metavar="K",
        help="pay for the first K tasks of each environment, once in each scaffold, and estimate the whole from them; "
        "the eval in the same --out folder does not pay for them again (default: no pilot)",
    )
    add(
        "--max-cost",
        type=float,
        metavar="USD",
        help="start no further rollout once this much is spent; the up to --concurrency rollouts that are under way "
        "end and may cost more, so lower both for a tight limit (default: no limit)",
    )
    add = command.add_argument_group("baselines").add_argument
    add("--no-baselines", dest="baselines", action="store_false", default=None, help="measure no baselines at the end")
    add(
        "--judge-baselines",
        action="store_true",
        default=None,
        help="ask the environment's judge about the baselines too; it costs five questions or more per task",
    )
    add_run_flags(command, out="outputs/ENVIRONMENT-MODEL-TIME", example="rollout.max_turns=8")
    command.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    command.set_defaults(run=_eval)


def _default(key: str) -> Any:
    return EvalConfig.model_fields[key].default


def _eval(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    config = _config(arguments)
    from rlm_env.evals.matrix import run_any
    from rlm_env.evals.stored import DONE

    progress = Console(stderr=True)
    if arguments.dry_run or arguments.pilot is not None:
        return _dry_run(arguments, config, progress)
    resume = resume_command("eval", config.out)
    try:
        result = asyncio.run(interruptible(run_any(config, progress, resume=arguments.resume)))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        begun = any(path.stat().st_size for path in config.out.glob("**/rollouts.jsonl"))
        return end_stopped(progress, stop, resume if begun else None)
    print_result(result, markdown=arguments.markdown)
    where = shlex.quote(str(result.path))
    say(progress, f"stored in {result.path}; to look at it: rlm-env view {where}, or rlm-env report {where} --html")
    if result.status not in DONE:
        text = f"{result.status}: rollouts are left to do. To go on with a higher limit:\n  {resume} --max-cost ..."
        say(progress, text, "yellow")
        return EXIT_MAX_COST
    return exit_code(result)


def _dry_run(arguments: argparse.Namespace, config: EvalConfig, progress: Console) -> int:
    """Estimates what the eval will take; returns the exit code."""
    from rlm_env.evals.dry_run import dry_run, estimate_notes, estimate_table
    from rlm_env.runs.tables import markdown_tables, print_tables

    pilot = arguments.pilot or 0
    if pilot < 1 and arguments.pilot is not None:
        raise ConfigError("--pilot needs at least 1 task")
    try:
        found = asyncio.run(interruptible(dry_run(config, progress, pilot=pilot)))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        return end_stopped(progress, stop, None)
    for one in found:
        if arguments.markdown:
            sys.stdout.write(markdown_tables([estimate_table(one)], estimate_notes(one)))
        else:
            print_tables(standard_output(PLAIN_WIDTH_OF_MANY), [estimate_table(one)], estimate_notes(one))
    if pilot:
        where = shlex.quote(str(config.out))
        say(progress, f"To run the eval: the same command without --pilot and with --out {where}")
    known = any(row.known for one in found for row in one.estimate.scaffolds)
    return EXIT_NOTHING_SCORED if pilot and not known else 0


def exit_code(result: EvalResult | MatrixResult) -> int:
    """0 if anything has a score."""
    scaffolds = [scaffold for summary in result.summaries.values() for scaffold in summary.scaffolds]
    failed = all(scaffold.outcomes[Outcome.ERROR] == scaffold.rollouts for scaffold in scaffolds)
    return EXIT_NOTHING_SCORED if failed else 0


def _config(arguments: argparse.Namespace) -> EvalConfig:
    """The config that the arguments describe. Raises ConfigError."""
    values = overrides(arguments, FLAGS)
    file = None
    if arguments.target.endswith(".toml"):
        file = Path(arguments.target)
    else:
        _check_name(arguments.target)
        values["environments"] = [{"name": arguments.target}]
    default_out = None if arguments.resume else datetime.now().strftime("%Y%m%d-%H%M%S")
    return load_eval_config(file, values, default_out)


def _check_name(name: str) -> None:
    """Raises ConfigError for an environment that there is not."""
    try:
        entry_of(name)
    except ValueError as error:
        more = "" if name.endswith(".py") else f" A config file ends in .toml. Example: {EXAMPLE}"
        raise ConfigError(f"{error}{more}") from error
