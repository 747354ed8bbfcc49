"""The learner's weights one after the other, for an engine that takes them out of memory.

The names, values and type are those of the folder that `Learner.export` writes; an adapter is merged in. Not covered:
who takes them (`sync/transfer.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlm_env.train.learner.adapter import merged_weights, unwrapped_name
from rlm_env.train.learner.forward import base_model
from rlm_env.train.learner.model import persistent_buffers


@dataclass(frozen=True, slots=True)
class WeightInfo:
    """What is known of a weight before it is gathered. The fields are those of vLLM's `ParamMeta`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class WeightStream:
    """Pairs of a Hugging Face name and a whole tensor, anew each time that it is iterated over, in the order of
    `metadata`, which gathers nothing. On several processes each tensor is gathered on all of them when its turn comes,
    so all must iterate to the end. Its methods are those of vLLM's `WeightSource`, as far as ipc and nccl use it.

    `exact`: the full tensor of a parameter. `dtype`: the type of the forward.
    """

    def __init__(self, model: nn.Module, exact: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        self._model = model
        self._exact = exact
        self._dtype = dtype

    def metadata(self) -> list[WeightInfo]:
        """Name, type and shape of each, in order."""
        found = [
            WeightInfo(unwrapped_name(name), self._dtype, tuple(parameter.shape))
            for name, parameter in base_model(self._model).named_parameters()
            if ".lora_" not in name
        ]
        buffers = persistent_buffers(self._model).items()
        return found + [WeightInfo(name, buffer.dtype, tuple(buffer.shape)) for name, buffer in buffers]

    @torch.no_grad()
    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in merged_weights(self._model, self._exact):
            yield name, weight.to(self._dtype)
        yield from persistent_buffers(self._model).items()


def stacked_experts(model: nn.Module) -> list[str]:
    """Parameters whose names and shapes in memory are not those of the model's files: the stacked weights of a mixture
    of experts, which an engine does not take as they are."""
    named = base_model(model).named_parameters()
    return [name for name, parameter in named if parameter.ndim == 3 and ".experts." in name]
