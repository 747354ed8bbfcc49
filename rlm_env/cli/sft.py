"""The command `rlm-env sft`: its flags, what it prints, how it ends. Imports torch only when it runs."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.cli.common import add_command, add_run_flags, overrides, resume_command, set_keys
from rlm_env.cli.training import run_training, training_packages
from rlm_env.runs.errors import ConfigError
from rlm_env.train.sft.config import SFTConfig, load_sft_config

EXAMPLES = """\
  rlm-env sft --model tiny-rlm --rollouts outputs/EVAL outputs/TRAIN/rollouts.jsonl
  rlm-env sft configs/train/sft_tiny.toml --dry-run
  rlm-env sft --model Qwen/Qwen3-4B --rollouts outputs/TEACHER --set keep.min_score=0.8 --set keep.best_of=2
  rlm-env sft outputs/sft-tiny-rlm/config.toml --resume
"""


def add_sft(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "sft",
        summary="train a policy on saved rollouts that scored well",
        description="Keeps the rollouts of evals or training runs that pass the filters of [keep], and trains the "
        "model on the replies in them, of root and sub-LLM alike. A run that was stopped goes on with --resume.",
        examples=EXAMPLES,
        keys=set_keys(SFTConfig, "docs/training-options.md"),
    )
    add = command.add_argument
    add(
        "config",
        nargs="?",
        type=Path,
        metavar="CONFIG.toml",
        help="the config of the run; see configs/train/, docs/training.md (default: --model and --rollouts say all)",
    )
    add(
        "--rollouts",
        nargs="+",
        metavar="PATH",
        help="rollouts.jsonl files, or run folders that hold one (default: the config's)",
    )
    add(
        "--model",
        help="the model to begin with: tiny-rlm, a model folder, or a Hub id in the local cache "
        "(default: the config's)",
    )
    add("--seed", type=int, metavar="N", help="seed of the order of samples (default: the config's, else 0)")
    add_run_flags(command, out="outputs/ and the config's name, else outputs/sft-MODEL", example="keep.min_score=0.5")
    add("--dry-run", action="store_true", help="choose the rollouts and check everything, and start nothing")
    command.set_defaults(run=_sft)


def _sft(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    if arguments.config is None and not (arguments.rollouts and arguments.model):
        raise ConfigError(
            "give a CONFIG.toml, or --rollouts and --model, for example: "
            "rlm-env sft --model tiny-rlm --rollouts outputs/EVAL"
        )
    config = load_sft_config(arguments.config, overrides(arguments, ("model", "rollouts", "out", "seed")))
    with training_packages():
        from rlm_env.train.sft.trainer import preview_sft, sft
    if arguments.dry_run:
        preview_sft(config, Console())
        return 0
    console = Console(stderr=True)
    work = partial(sft, config, console, resume=arguments.resume)
    return run_training(work, config.out, resume_command("sft", config.out), console)
