"""The command `rlm-env train`: its flags, what it prints, how it ends. Imports torch only when it runs."""

from __future__ import annotations

import argparse
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.cli.common import add_command, add_run_flags, overrides, resume_command, set_keys
from rlm_env.cli.training import run_training, training_packages
from rlm_env.train.rl.config import TrainConfig, load_train_config

EXAMPLES = """\
  rlm-env train configs/train/tiny.toml
  rlm-env train configs/train/tiny.toml --set steps=5 --set groups.size=4 --out outputs/try
  rlm-env train configs/train/qwen3_4b_lora_1gpu.toml --dry-run
  rlm-env train outputs/try/config.toml --resume
  torchrun --nproc-per-node 8 -m rlm_env.cli train configs/train/qwen3_8gpu_fsdp.toml
"""


def add_train(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "train",
        summary="train a policy by reinforcement learning on its own rollouts",
        description="Samples groups of rollouts on a local vLLM, scores them, updates the policy and brings the new "
        "weights into the engine, step by step. A run that was stopped goes on with --resume.",
        examples=EXAMPLES,
        keys=set_keys(TrainConfig, "docs/training-options.md"),
    )
    add = command.add_argument
    add("config", type=Path, metavar="CONFIG.toml", help="the config of the run; see configs/train/, docs/training.md")
    add("--seed", type=int, metavar="N", help="seed of the tasks and the training (default: the config's, else 0)")
    add_run_flags(command, out="outputs/ and the config's name", example="optimizer.lr=1e-5")
    add("--dry-run", action="store_true", help="check the config and what the run needs, and start nothing")
    add(
        "--dump-samples",
        type=Path,
        metavar="FOLDER",
        help="also write the samples that each step trains on (default: they are not kept)",
    )
    add(
        "--from-samples",
        type=Path,
        metavar="FOLDER",
        help="train on the samples that an earlier run wrote with --dump-samples, without an engine "
        "(default: on new rollouts)",
    )
    command.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    console = Console(stderr=True)
    config = load_train_config(arguments.config, overrides(arguments, ("out", "seed")))
    with training_packages():
        from rlm_env.train.rl.preflight import preflight
        from rlm_env.train.rl.trainer import TrainOptions, train
    if arguments.dry_run:
        if os.environ.get("RANK", "0") == "0":
            preflight(config, Console())
        return 0
    command = resume_command("train", config.out)
    if arguments.from_samples:
        command += f" --from-samples {shlex.quote(str(arguments.from_samples))}"
    options = TrainOptions(arguments.resume, arguments.dump_samples, arguments.from_samples)
    return run_training(partial(train, config, console, options), config.out, command, console)
