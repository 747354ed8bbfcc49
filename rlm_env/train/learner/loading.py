"""Loading on several processes: the model is made without values, sharded, and each process reads its own rows.

No process holds a model that it does not train. Not covered: loading on one process (`model.py`), the files
(`weight_files.py`), sharding (`distributed.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlm_env.train.learner import distributed
from rlm_env.train.learner.adapter import adapter_start, unwrapped_name
from rlm_env.train.learner.config import ModelConfig, ModelError
from rlm_env.train.learner.forward import base_model
from rlm_env.train.learner.model import (
    lacks,
    model_without_values,
    persistent_buffers,
    prepare,
    read_model_config,
)
from rlm_env.train.learner.weight_files import WeightFiles


def empty_model(folder: Path, config: ModelConfig, seed: int, dtype: torch.dtype | None = None) -> nn.Module:
    """The model in `folder`, with an adapter where one is configured, its parameters on the meta device. Buffers have
    their values. `dtype`: None, as it is trained. Raises ModelError as `load_model` does."""
    with init_empty_weights(include_buffers=False):
        model = model_without_values(read_model_config(folder), config, dtype)
    model.tie_weights()
    return prepare(model, config, seed)


def fill(model: nn.Module, folder: Path, config: ModelConfig, device: torch.device, seed: int) -> None:
    """Gives a model from `empty_model` its values: all of it, or of a sharded one this process's share. A sharded model
    is filled on all processes together."""
    base = base_model(model)
    files = WeightFiles(folder, base)
    sharded = any(isinstance(parameter, DTensor) for parameter in base.parameters())
    named = dict(base.named_parameters(remove_duplicate=False))
    aliases: dict[int, list[str]] = {}
    for name, parameter in named.items():
        aliases.setdefault(id(parameter), []).append(name)
    _require_all(folder, files, aliases.values(), persistent_buffers(model))
    values: dict[str, Any] = {}
    for names in aliases.values():
        parameter = named[names[0]]
        rows = _rows(parameter)
        if ".lora_" in names[0]:
            whole = adapter_start(names[0], parameter.shape, seed)
            found = whole if rows is None else whole[rows]
        else:
            found = files.read(next(plain for n in names if (plain := unwrapped_name(n)) in files), rows)
        found = found.to(device, parameter.dtype)
        filled = nn.Parameter(_like(parameter, found), requires_grad=parameter.requires_grad)
        values |= dict.fromkeys(names, filled)
    for name, buffer in base.named_buffers():
        if (plain := unwrapped_name(name)) in files:
            values[name] = files.read(plain).to(device, buffer.dtype)
    base.load_state_dict(values, strict=False, assign=True)
    if not sharded:
        base.to(device)


def _require_all(folder: Path, files: WeightFiles, aliases: Iterable[list[str]], buffers: Iterable[str]) -> None:
    """Raises ModelError where the files lack weights. `aliases`: the names of each parameter; one of them is enough."""
    wanted = [[unwrapped_name(name) for name in names] for names in aliases if ".lora_" not in names[0]]
    lacking = [names[0] for names in [*wanted, *([name] for name in buffers)] if not any(n in files for n in names)]
    if lacking:
        raise ModelError(f"{folder} lacks {lacks(lacking)}")


def _rows(parameter: Tensor) -> slice | None:
    """The rows of a sharded parameter that belong to this process, as FSDP2 shares them out; None: all."""
    if not isinstance(parameter, DTensor):
        return None
    count, processes = len(parameter), distributed.world_size()
    size = -(-count // processes)
    start = min(distributed.rank() * size, count)
    stop = min(start + size, count)
    assert len(parameter.to_local()) == stop - start
    return slice(start, stop)


def _like(parameter: Tensor, values: Tensor) -> Tensor:
    """The values, sharded as the parameter is."""
    if not isinstance(parameter, DTensor):
        return values
    return DTensor.from_local(
        values, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
