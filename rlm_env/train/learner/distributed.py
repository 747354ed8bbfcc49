"""Training on several processes: each holds a share of every weight and takes a share of the packs.

Covered: who and how many we are, sharding with FSDP2, sharing packs out, sums over processes, and one process that
leads while the others follow. Not covered: starting the processes, which is torchrun's task; more than one optimizer
step in flight; tensor or expert parallelism.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from rlm_env.train.learner.packing import pack_samples
from rlm_env.train.learner.samples import Sample

_PATIENCE = timedelta(hours=12)
"""How long followers wait for the leader, who may be sampling or evaluating."""


def rank() -> int:
    """Which process this is; 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Which process of this machine, as torchrun counts."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many processes of the run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started: NCCL between GPUs, gloo between CPUs. Without torchrun, nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(root: nn.Module, layers: list[nn.Module], dtype: torch.dtype, device: torch.device) -> None:
    """FSDP2: parameters become shards of float32 on `device`, gathered in `dtype` layer by layer; gradients are
    summed over processes in float32. `root` takes what is in no layer. Every process must hold equal weights."""
    mesh = init_device_mesh(device.type, (world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in [*layers, root]:
        fully_shard(module, mesh=mesh, mp_policy=precision, reshard_after_forward=module is not root)
        # A sum, not a mean: the loss is already divided by what all processes train. gloo knows no scaled sums.
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, on every process, which all must ask; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share(samples: list[Sample], budget: int) -> list[list[Sample]]:
    """This process's packs of `samples`. All get equally many, because each forward and backward is done together:
    where packs run out, a pack of `_filler`, which adds exactly 0."""
    packs = pack_samples(samples, budget)
    mine = packs[rank() :: world_size()]
    return mine + [[_filler()] for _ in range(-(-len(packs) // world_size()) - len(mine))]


def is_filler(samples: list[Sample]) -> bool:
    return samples[0].rollout_id == _FILLER


def sum_over_processes(values: dict[str, float]) -> dict[str, float]:
    """Adds up, over the processes, values under equal names; in float64."""
    if world_size() == 1:
        return values
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))


def gather(value: Any) -> list[Any]:
    """The value of every process, on every process, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


_FILLER = "filler"


def _filler() -> Sample:
    return Sample([0, 0], [False, True], [0.0, 0.0], _FILLER, weight=0.0)


class Leader:
    """A learner as rank 0 sees it: what is called here, every process does. See `leading`."""

    def __init__(self, learner: Any) -> None:
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._learner, name)
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            dist.broadcast_object_list([(name, arguments)], src=0, device=torch.device("cpu"))
            return value(*arguments)

        return call


@contextmanager
def leading(learner: Any) -> Iterator[Any]:
    """On rank 0: the learner to work with, whose followers stop at the end. One process: the learner itself.

    After an error followers are not told to stop, as they may be in the midst of what failed: torchrun ends them.
    """
    if world_size() == 1:
        yield learner
        return
    yield Leader(learner)
    dist.broadcast_object_list([None], src=0, device=torch.device("cpu"))


def follow(learner: Any) -> None:
    """On the other ranks: does what the leader does, until it stops. Errors are raised here as well, so that
    torchrun ends all processes together."""
    while True:
        order: list[Any] = [None]
        dist.broadcast_object_list(order, src=0, device=torch.device("cpu"))
        if order[0] is None:
            return
        name, arguments = order[0]
        getattr(learner, name)(*arguments)
