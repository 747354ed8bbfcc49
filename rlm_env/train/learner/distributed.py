"""Training on several processes: each holds a shard of every weight and trains a share of the packs.

Covered: rank and world size, sharding with FSDP2, sharing out packs, sums over processes, and a leader process whose
calls all others repeat. Not covered: starting the processes (torchrun does); tensor or expert parallelism.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from rlm_env.train.learner.packing import balanced_packs, pack_samples
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.tree_packing import tree_packs

_TIMEOUT = timedelta(hours=12)
"""How long followers wait for the leader, which may be sampling or evaluating."""
_FILLER = "\0filler"
"""Rollout id of the sample that fills up a process's share of packs."""

T = TypeVar("T")


def rank() -> int:
    """The number of this process; 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """The number of this process on its machine, as torchrun counts."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """The number of processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started: NCCL between GPUs, gloo between CPUs. No-op without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(root: nn.Module, layers: list[nn.Module], dtype: torch.dtype, device: torch.device) -> None:
    """FSDP2: parameters become shards of float32 on `device`, gathered in `dtype` layer by layer; gradients are
    summed over processes in float32. `root` covers the parameters outside of `layers`. Parameters on the meta device
    stay there (`loading.py`)."""
    mesh = init_device_mesh(device.type, (world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in [*layers, root]:
        fully_shard(module, mesh=mesh, mp_policy=precision, reshard_after_forward=module is not root)
        sharded = cast(FSDPModule, module)  # fully_shard changes the class in place
        # A sum, not a mean: the loss is divided by what all processes train already. gloo knows no scaled sums.
        sharded.set_force_sum_reduction_for_comms(True)
        sharded.set_gradient_divide_factor(1.0)


def reshard(root: nn.Module) -> None:
    """Frees the parameters that a forward gathered, where no backward will. No-op on one process."""
    if isinstance(root, FSDPModule):
        root.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one, on every process (all must call this); any other tensor unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _length(sample: Sample, shared: int = 0) -> float:
    return len(sample) - shared


def share(
    samples: list[Sample],
    budget: int,
    together: bool = True,
    cost: Callable[..., float] = _length,
    as_trees: bool = False,
    on_card: bool = False,
) -> list[list[Sample]]:
    """This process's packs of `samples`; on several processes those of a round cost about the same. Every process gets
    the same number, because forward and backward are collective: missing packs are filled up with a sample of weight 0,
    which adds exactly 0. `budget` and `together`: see `pack_samples`; `cost`: of a sample, in any unit, as `Cost.of`
    takes it; `as_trees`: packs for trees, `on_card`: on a GPU (`tree_packs`)."""
    if as_trees:
        packs = tree_packs(samples, budget, world_size(), cost, on_card)
    elif world_size() == 1:
        packs = pack_samples(samples, budget, together)
    else:
        packs = balanced_packs(samples, budget, world_size(), cost, together)
    mine = packs[rank() :: world_size()]
    return mine + [[_filler()] for _ in range(-(-len(packs) // world_size()) - len(mine))]


def is_filler(samples: list[Sample]) -> bool:
    return samples[0].rollout_id == _FILLER


def sum_over_processes(values: dict[str, float], largest: bool = False) -> dict[str, float]:
    """Sums over processes, name by name, in float64; with `largest` the largest value instead."""
    if world_size() == 1:
        return values
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
    return dict(zip(values, total.tolist(), strict=True))


def gather(value: Any) -> list[Any]:
    """The values of all processes by rank, on every process."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def barrier() -> None:
    """Waits for all processes."""
    if world_size() > 1:
        dist.barrier()


def _filler() -> Sample:
    """A sample without weight, for a process that has fewer packs than others."""
    return Sample([0, 0], [False, True], [0.0, 0.0], _FILLER, weight=0.0)


class Leader:
    """The learner of rank 0 (see `leading`): a call of any of its methods is made on every process."""

    def __init__(self, learner: object) -> None:
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
def leading(learner: T) -> Iterator[T]:
    """On rank 0: yields the learner to use, and releases the followers at the end. One process: the learner itself.

    After an error the followers get no signal, as they may be in the middle of the call that failed; torchrun ends
    them.
    """
    if world_size() == 1:
        yield learner
        return
    yield cast(T, Leader(learner))  # which forwards every attribute
    dist.broadcast_object_list([None], src=0, device=torch.device("cpu"))


def follow(learner: object) -> None:
    """On the other ranks: repeats the leader's calls until it is done. Errors are raised here as well, so that torchrun
    ends all processes together."""
    while True:
        order: list[Any] = [None]
        dist.broadcast_object_list(order, src=0, device=torch.device("cpu"))
        if order[0] is None:
            return
        name, arguments = order[0]
        getattr(learner, name)(*arguments)
