"""Loading on several processes: the model is made without values, sharded, and each process reads its own rows.

No process holds a model that it does not train. Where the names in the files are not those of the model, as of most
mixtures of experts, which transformers stacks while loading, the first process loads the model in the machine's memory
and sends one tensor after the other. Not covered: loading on one process (`model.py`), sharding (`distributed.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlm_env.train.learner import distributed
from rlm_env.train.learner.adapter import adapter_start, unwrapped_name
from rlm_env.train.learner.config import ModelConfig
from rlm_env.train.learner.forward import base_model
from rlm_env.train.learner.model import (
    from_pretrained,
    model_without_values,
    persistent_buffers,
    prepare,
    read_model_config,
)


class WeightFiles:
    """The safetensors files of a model folder."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or rows of it; nothing else is read."""
        with safe_open(self._files[name], "pt") as file:
            return file.get_tensor(name) if rows is None else file.get_slice(name)[rows]


def empty_model(folder: Path, config: ModelConfig, seed: int) -> nn.Module:
    """The model in `folder`, with an adapter where one is configured, its parameters on the meta device. Buffers have
    their values. Raises ModelError as `load_model` does."""
    with init_empty_weights(include_buffers=False):
        model = model_without_values(read_model_config(folder), config)
    model.tie_weights()
    return prepare(model, config, seed)


def fill(model: nn.Module, folder: Path, config: ModelConfig, device: torch.device, seed: int) -> None:
    """Gives a model from `empty_model` its values: all of it, or of a sharded one this process's share. A sharded model
    is filled on all processes together."""
    base = base_model(model)
    files = WeightFiles(folder)
    sharded = any(isinstance(parameter, DTensor) for parameter in base.parameters())
    named = dict(base.named_parameters(remove_duplicate=False))
    aliases: dict[int, list[str]] = {}
    for name, parameter in named.items():
        aliases.setdefault(id(parameter), []).append(name)
    known = {unwrapped_name(name) for names in aliases.values() for name in names if ".lora_" not in name}
    buffers = persistent_buffers(model)
    if all(any(unwrapped_name(n) in files for n in names) for names in aliases.values() if ".lora_" not in names[0]):
        read: Callable[[str, slice | None], Tensor] = files.read
        here = {name: name for name in known | buffers.keys() if name in files}
    else:
        read = _Sent(folder, config, base)
        here = {name: name for name in known | buffers.keys()}
    values: dict[str, Any] = {}
    for names in aliases.values():
        parameter = named[names[0]]
        rows = _rows(parameter)
        if ".lora_" in names[0]:
            whole = adapter_start(names[0], parameter.shape, seed)
            found = whole if rows is None else whole[rows]
        else:
            source = next(plain for n in names if (plain := unwrapped_name(n)) in here)
            found = read(source, rows)
        found = found.to(device, parameter.dtype)
        filled = nn.Parameter(_like(parameter, found), requires_grad=parameter.requires_grad)
        values |= dict.fromkeys(names, filled)
    for name, buffer in base.named_buffers():
        if (plain := unwrapped_name(name)) in buffers and plain in here:
            values[name] = read(plain, None).to(device, buffer.dtype)
    base.load_state_dict(values, strict=False, assign=True)
    if not sharded:
        base.to(device)


class _Sent:
    """Reads from a model that the first process loads whole, in the machine's memory; one tensor at a time is sent."""

    def __init__(self, folder: Path, config: ModelConfig, like: nn.Module) -> None:
        self._state: dict[str, Tensor] | None = None
        self._shapes = {unwrapped_name(name): t for name, t in [*like.named_parameters(), *like.named_buffers()]}
        self._together = any(isinstance(parameter, DTensor) for parameter in like.parameters())
        if distributed.rank() == 0 or not self._together:
            self._state = from_pretrained(folder, config).state_dict()

    def __call__(self, name: str, rows: slice | None) -> Tensor:
        if not self._together:
            assert self._state is not None
            return self._state[name]
        like = self._shapes[name]
        device = like.device_mesh.device_type if isinstance(like, DTensor) else like.device.type
        if self._state is not None:
            whole = self._state[name].to(device, like.dtype).contiguous()
        else:
            whole = torch.empty(like.shape, dtype=like.dtype, device=device)
        dist.broadcast(whole, 0)
        return whole if rows is None else whole[rows].clone()


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
