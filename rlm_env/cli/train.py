"""The command `rlm-env train`: arguments, messages, exit codes. Imports torch only when it runs."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.runs.config import merge_options
from rlm_env.runs.console import say, say_stopped
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import Terminated

EXAMPLES = """\
examples:
  rlm-env train configs/train/tiny.toml
  rlm-env train configs/train/tiny.toml --set steps=5 --set groups.size=4 --out outputs/try
  rlm-env train configs/train/qwen3_4b_lora_1gpu.toml --dry-run
  rlm-env train outputs/try/config.toml --resume
  torchrun --nproc-per-node 8 -m rlm_env.cli train configs/train/qwen3_8gpu_fsdp.toml
"""


def add_train(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = commands.add_parser(
        "train",
        help="train a policy by reinforcement learning on its own rollouts",
        description="Samples groups of rollouts on a local vLLM, scores them, updates the policy and brings the new "
        "weights into the engine, step by step. A run that was stopped goes on with --resume.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("config", type=Path, metavar="CONFIG.toml", help="see configs/train/ and docs/training.md")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="over the file, for example optimizer.lr=1e-5")
    add("--out", type=Path, metavar="FOLDER", help="output folder (default: outputs/ and the config's name)")
    add("--seed", type=int)
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add("--dry-run", action="store_true", help="check everything, show what it comes to, start nothing")
    add("--dump-samples", type=Path, metavar="FOLDER", help="write the samples that each step trains")
    add(
        "--from-samples",
        type=Path,
        metavar="FOLDER",
        help="train on samples that were written before, without an engine",
    )
    command.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True)
    config = _config(arguments)
    try:
        from rlm_env.cli.train_report import conclude
        from rlm_env.train.rl.preflight import preflight
        from rlm_env.train.rl.trainer import TrainOptions, train
    except ImportError as error:
        raise ConfigError(f"training needs the package {error.name!r}: pip install 'rlm-env[train]'") from error
    if arguments.dry_run:
        if os.environ.get("RANK", "0") == "0":
            preflight(config, Console())
        return 0
    options = TrainOptions(arguments.resume, arguments.dump_samples, arguments.from_samples)
    try:
        model = train(config, console, options)
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        exit_code = say_stopped(console, stop)
        command = f"rlm-env train {shlex.quote(str(config.out / 'config.toml'))} --resume"
        if arguments.from_samples:
            command += f" --from-samples {shlex.quote(str(arguments.from_samples))}"
        say(console, f"To go on:\n  {command}")
        return exit_code
    if model is not None:
        conclude(config.out, console)
        say(console, f"the trained model is in {model}")
    return 0


def _config(arguments: argparse.Namespace) -> Any:
    from rlm_env.train.rl.config import load_train_config

    overrides = merge_options(arguments.set)
    overrides |= {key: value for key in ("out", "seed") if (value := getattr(arguments, key)) is not None}
    return load_train_config(arguments.config, overrides)
