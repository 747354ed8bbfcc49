"""What `--dry-run` says of a training's model: how its samples are packed, and the memory that it needs.

Refuses what loading the model would refuse, as far as that can be told without its weights.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rlm_env.train.learner.config import ModelConfig, ModelError
from rlm_env.train.learner.memory import GIB, available_memory, free_memory, memory_problem, training_memory
from rlm_env.train.learner.model import pick_device, read_model_config
from rlm_env.train.learner.small_twin import planned_packing


def preview_model(folder: Path, config: ModelConfig, *, reference: bool = False) -> list[tuple[str, str]]:
    """The lines, by what they are about; under torchrun for as many processes. `reference`: with a KL term.

    Raises ModelError and PackingError where the model cannot be trained as configured, and where the device has too
    little memory, unless the run may be meant for another machine.
    """
    device, model_config = pick_device(config), read_model_config(folder)
    processes, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    need = training_memory(model_config, config, processes, reference=reference)
    free = free_memory(device, here)
    each = f" in each of {processes} processes" if processes > 1 else ""
    lines = [
        ("packs", _packing_words(planned_packing(model_config, config, device.type), config)),
        ("memory", f"about {need.total / GIB:.2f} GiB{each} of {free / GIB:.2f} GiB free on {device} ({need})"),
    ]
    problem = memory_problem(need, folder, config, device, here)
    if problem is not None and (device.type == "cuda" or config.device == "cpu"):
        raise ModelError(problem)
    if problem is not None:
        lines.append(("", "too much for this machine, which has no GPU: the run would be refused here"))
    if device.type == "cuda" or processes > 1:
        free = available_memory(torch.device("cpu"))
        who = " by the first process" if processes > 1 else ""
        lines.append(("loading", f"{need.loading / GIB:.2f} GiB{who} of {free / GIB:.2f} GiB of the machine's memory"))
    return lines


def _packing_words(found: tuple[bool, bool] | None, config: ModelConfig) -> str:
    """`planned_packing` in words."""
    if found is None:
        return "unchecked: whether they are exact for this model is seen when it is loaded"
    together, as_trees = found
    if as_trees:
        return "trees of samples" if config.packing == "tree" else "several samples, as trees where that pays"
    if together:
        return "several samples"
    return "one sample each" if config.packing is False else "one sample each: this model's state leaks over a pack"
