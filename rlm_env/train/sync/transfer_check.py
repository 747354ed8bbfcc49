"""What cannot work with `sync.method = "ipc"` or `"nccl"`, found before anything is started."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rlm_env.train.sync.config import METHODS_OF_VLLM


def trainer_gpus(processes: int) -> list[str]:
    """The GPUs of so many trainer processes on this machine, as CUDA_VISIBLE_DEVICES names them."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[:processes] if visible else [str(number) for number in range(processes)]


def transfer_refusal(
    method: str,
    *,
    device: str,
    cpu_engine: bool,
    trainer: Sequence[str],
    engine: Sequence[str] | None,
    stacked: Sequence[str] = (),
) -> str | None:
    """Why weights cannot travel by `method`, with the remedy; None where they can, or go another way.

    `device`: the trainer's, `cuda` or `cpu`. `cpu_engine`: vLLM is the CPU build. `trainer`, `engine`: their GPUs; an
    engine on another machine shares none, and None is an engine that takes the trainer's first ones. `stacked`: the
    model's weights that are not in memory as in its files.
    """
    if method not in METHODS_OF_VLLM:
        return None
    where = f'sync.method = "{method}"'
    if device != "cuda" or cpu_engine:
        what = "vLLM is the CPU build" if cpu_engine else f"the trainer is on {device}"
        return f'{where} needs GPUs, and {what}: use "disk"'
    if stacked:
        return (
            f"{where}: this model stacks the weights of its experts ({stacked[0]}), which vLLM does not take as they "
            'are in memory: use "disk"'
        )
    shared = list(trainer) if engine is None else [gpu for gpu in engine if gpu in trainer]
    if method == "nccl" and shared:
        return (
            f"{where}: trainer and engine share GPU {', '.join(shared)}, which NCCL refuses: give the engine others "
            'with engine.devices, or use "ipc"'
        )
    if method == "ipc" and engine is not None and len(shared) < len(engine):
        others = ", ".join(gpu for gpu in engine if gpu not in trainer)
        return f'{where}: the engine has GPU {others}, which the trainer has not; for other GPUs use "nccl"'
    return None
