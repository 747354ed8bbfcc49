"""How long new weights take into an engine, by each way that this machine has: the stage `sync` of `gpu.py`."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlm_env.llm.vllm.install import VLLMStartError, check_installed, is_cpu_build
from rlm_env.llm.vllm.model_folder import find_model
from rlm_env.runs.options import EngineOptions
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.sync.config import SyncConfig
from rlm_env.train.sync.engine import TrainEngine
from rlm_env.train.sync.local_engine import LocalEngine
from rlm_env.train.sync.weight_sync import make_sync

if TYPE_CHECKING:
    from gpu import Bench

UPDATES = 3
SHARE = "0.3"
"""Of the GPU's memory, for an engine beside the trainer."""
TINY_RLM = Path(__file__).parents[2] / "rlm_env" / "models" / "tiny-rlm"


def run(bench: Bench, folder: Path, root: Path) -> None:
    """Each way on an engine of its own. `folder`: a model without a tokenizer, which gets the shipped one, whose ids
    any vocabulary has; with tiny shapes the shipped model is taken instead."""
    for method, why_not in ways(bench.device).items():
        if why_not is not None:
            bench.say("sync", method=method, skipped=why_not)
            continue
        with bench.caught("sync", method=method):
            model = _servable(folder, root / f"{method}-model") if bench.shapes == "real" else TINY_RLM
            asyncio.run(_with_engine(bench, method, model, root / method))


def ways(device: torch.device) -> dict[str, str | None]:
    """Why a way cannot be measured here, None where it can."""
    try:
        check_installed()
        engine = None
    except VLLMStartError as error:
        engine = str(error)
    card = "there is no card" if device.type != "cuda" else "vLLM is the CPU build" if is_cpu_build() else None
    missing = None if importlib.util.find_spec("renderers") else "the package renderers is missing"
    cards = torch.cuda.device_count() if device.type == "cuda" else 0
    other = None if cards > 1 else f"there is no second card beside the trainer's ({cards} in all)"
    return {
        "disk": engine or missing or (card if device.type == "cuda" else None),
        "ipc": engine or missing or card,
        "nccl": engine or missing or card or other,
    }


def _servable(folder: Path, target: Path) -> Path:
    """A copy of a model with the shipped tokenizer, template and profile."""
    shutil.copytree(folder, target)
    for file in [*TINY_RLM.glob("token*"), *TINY_RLM.glob("*.jinja"), TINY_RLM / "rlm_env.json"]:
        shutil.copyfile(file, target / file.name)
    return target


async def _with_engine(bench: Bench, method: str, model: Path, root: Path) -> None:
    """Starts learner and engine, and measures."""
    dtype = "bfloat16" if bench.device.type == "cuda" else "float32"
    memory = ("--gpu-memory-utilization", SHARE) if bench.device.type == "cuda" else ()
    options = EngineOptions(
        extra_args=memory, max_model_len=1024, eager=True, devices=(1,) if method == "nccl" else None
    )
    config = ModelConfig(dtype=dtype, device=bench.device.type, pack_tokens=2048)
    learner = Learner(model, config, OptimizerConfig(lr=1e-5), LossConfig(), total_steps=UPDATES)
    async with LocalEngine(model, options, log_folder=root, dtype=dtype, method=method) as engine:
        await measure(bench, engine, learner, method, root / "weights")


async def measure(bench: Bench, engine: TrainEngine, learner: Learner, method: str, folder: Path) -> None:
    """`UPDATES` updates of an engine that has nothing else to do; the fastest one counts, by its parts."""
    sync = make_sync(SyncConfig(method=method), folder, engine.dtype)
    await sync.start(learner, engine)
    found = min([await sync.publish(learner.version) for _ in range(UPDATES)], key=_travel)
    size = sum(p.numel() for p in learner.model.parameters()) * learner.model.dtype.itemsize
    parts = {name.removeprefix("sync_"): found[name] for name in found if name.startswith("sync_seconds_")}
    seconds = _travel(found)
    bench.say(
        "sync",
        method=method,
        model=find_model(engine.model.path).name,
        seconds=seconds,
        gb=size / 1e9,
        gb_per_s=size / 1e9 / seconds,
        **parts,
        mean_abs=found["sync_mean_abs"],
    )
    bench.check(f"sync by {method}: log-probabilities of engine and trainer", found["sync_mean_abs"], sync.tolerance)


def _travel(found: dict[str, float]) -> float:
    """Seconds from the trainer's memory to an engine that goes on."""
    return sum(found[f"sync_seconds_{part}"] for part in ("export", "pause", "load"))
