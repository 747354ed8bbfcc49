"""The command `rlm-env sft`: arguments, messages, exit codes. Imports torch only when it runs."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.runs.config import merge_options
from rlm_env.runs.console import say, say_stopped
from rlm_env.runs.errors import ConfigError, RunStopped

EXAMPLES = """\
examples:
  rlm-env sft --model tiny-rlm --rollouts outputs/EVAL outputs/TRAIN/rollouts.jsonl
  rlm-env sft configs/train/sft_tiny.toml --dry-run
  rlm-env sft --model Qwen/Qwen3-4B --rollouts outputs/TEACHER --set keep.min_score=0.8 --set keep.best_of=2
  rlm-env sft outputs/sft-tiny-rlm/config.toml --resume
"""


def add_sft(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = commands.add_parser(
        "sft",
        help="train a policy on saved rollouts that scored well",
        description="Keeps the rollouts of evals or training runs that pass the filters of [keep], and trains the "
        "model to say what was said in them, root and sub-LLM alike. A run that was stopped goes on with --resume.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("config", nargs="?", type=Path, metavar="CONFIG.toml", help="see configs/train/ and docs/training.md")
    add("--rollouts", nargs="+", metavar="FILE", help="rollouts.jsonl files, or run folders that hold one")
    add("--model", help="the model to begin with: tiny-rlm, a model folder, a Hub id in the local cache")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="over the file, for example keep.min_score=0.5")
    add("--out", type=Path, metavar="FOLDER", help="output folder (default: outputs/ and the config's name)")
    add("--seed", type=int)
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add("--dry-run", action="store_true", help="choose the rollouts, check everything, start nothing")
    command.set_defaults(run=_sft)


def _sft(arguments: argparse.Namespace) -> int:
    from rlm_env.train.sft.config import load_sft_config

    if arguments.config is None and not (arguments.rollouts and arguments.model):
        raise ConfigError("give a CONFIG.toml, or --rollouts and --model")
    overrides = merge_options(arguments.set)
    keys = ("model", "rollouts", "out", "seed")
    overrides |= {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    config = load_sft_config(arguments.config, overrides)
    try:
        from rlm_env.cli.train_report import conclude
        from rlm_env.train.sft.trainer import preview_sft, sft
    except ImportError as error:
        raise ConfigError(f"training needs the package {error.name!r}: pip install 'rlm-env[train]'") from error
    console = Console(stderr=True)
    if arguments.dry_run:
        preview_sft(config, Console())
        return 0
    try:
        model = sft(config, console, resume=arguments.resume)
    except (RunStopped, KeyboardInterrupt) as stop:
        exit_code = say_stopped(console, stop)
        command = f"rlm-env sft {shlex.quote(str(config.out / 'config.toml'))} --resume"
        say(console, f"To go on:\n  {command}")
        return exit_code
    if model is not None:
        conclude(config.out, console)
        say(console, f"the trained model is in {model}")
    return 0
