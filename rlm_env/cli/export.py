"""The command `rlm-env export`: a run in the form of other tools. The work is in `rlm_env/adapters/`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.cli.common import add_command, needed_packages
from rlm_env.runs.console import say, say_note
from rlm_env.runs.errors import ConfigError

EXAMPLES = """\
  rlm-env export outputs/NAME --to inspect && inspect view --log-dir outputs/NAME/export
  rlm-env export outputs/NAME --to verifiers && vf-replay outputs/NAME/export/ENVIRONMENT--rlm
  rlm-env export outputs/NAME --to parquet --out data
  rlm-env export outputs/NAME --to hf --out data && hf upload USER/REPO data --repo-type dataset
"""
TARGETS = {
    "inspect": "logs of inspect_ai (.eval), one for each scaffold, which `inspect view` opens",
    "verifiers": "traces of verifiers 0.4, a folder for each scaffold, which its loaders and `vf-replay` read",
    "parquet": "rollouts.parquet and conversations.parquet",
    "hf": "the same with a data set card: a folder that load_dataset reads and the Hugging Face Hub takes",
}
EXTRAS = {"inspect": "inspect", "verifiers": "verifiers"}
"""Target -> the extra that it needs, where that is not `data`."""


def add_export(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "export",
        summary="write a run in the form of another tool: inspect_ai, verifiers, Parquet, Hugging Face",
        description="Writes the rollouts of a run in the form of another tool. The run stays as it is.",
        examples=EXAMPLES,
    )
    add = command.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the output folder of an eval or of a training run")
    choices = "; ".join(f"{name}: {text}" for name, text in TARGETS.items())
    add("--to", required=True, choices=TARGETS, metavar="FORMAT", help=choices)
    add("--out", type=Path, metavar="FOLDER", help="where to write (default: FOLDER/export)")
    command.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    folder, out = arguments.folder, arguments.out or arguments.folder / "export"
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    with needed_packages("this", EXTRAS.get(arguments.to, "data")):
        match arguments.to:
            case "inspect":
                paths = _write_inspect(folder, out)
            case "verifiers":
                paths = _write_verifiers(folder, out)
            case _:
                paths = _write_dataset(folder, out, arguments.to)
    for path in paths:
        say(Console(), str(path))
    return 0


def _write_inspect(folder: Path, out: Path) -> list[Path]:
    from rlm_env.adapters.inspect_log import write_inspect_logs
    from rlm_env.evals.matrix import MatrixResult, stored_result
    from rlm_env.evals.stored import stored_eval
    from rlm_env.reports.reading import is_training

    if is_training(folder):
        raise ConfigError(f"{folder} holds a training run: --to inspect is for evals, the others take it")
    result = stored_result(folder)
    if isinstance(result, MatrixResult):
        return [path for label in result.summaries for path in write_inspect_logs(stored_eval(folder / label), out)]
    return write_inspect_logs(result, out)


def _write_verifiers(folder: Path, out: Path) -> list[Path]:
    from rlm_env.adapters.verifiers.trace_export import write_eval_traces, write_training_traces
    from rlm_env.evals.matrix import MatrixResult, stored_result
    from rlm_env.reports.reading import is_training

    def warn(text: str) -> None:
        say_note(Console(stderr=True), text)

    if is_training(folder):
        return write_training_traces(folder, out, warn)
    result = stored_result(folder)
    if isinstance(result, MatrixResult):
        return [path for label in result.summaries for path in write_eval_traces(folder / label, out, warn)]
    return write_eval_traces(folder, out, warn)


def _write_dataset(folder: Path, out: Path, target: str) -> list[Path]:
    import rlm_env
    from rlm_env.adapters.dataset import write_hub_folder, write_parquet
    from rlm_env.rollout import Rollout
    from rlm_env.runs.folder import ROLLOUTS, latest_rollouts

    files = sorted(path for path in folder.glob(f"**/{ROLLOUTS}") if out not in path.parents)
    if not files:
        raise ConfigError(f"{folder} holds no rollouts: there is no {ROLLOUTS} in it")

    def read() -> Iterator[Rollout]:
        for path in files:
            yield from latest_rollouts(path)

    if target == "parquet":
        return write_parquet(read, out)
    return write_hub_folder(read, out, folder.resolve().name, rlm_env.__version__)
