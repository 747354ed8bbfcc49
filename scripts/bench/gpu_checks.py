"""Whether the trainer computes on this device what it computes on a CPU in float32: the stage `check` of `gpu.py`."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from gpu_shapes import SHAPES, make_folder, rlm_samples
from safetensors import safe_open

from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.optimizer import Update
from rlm_env.train.learner.samples import Sample

if TYPE_CHECKING:
    from gpu import Bench

BOUNDS = {"float32": 1e-4, "bfloat16": 0.03}
"""Largest relative difference to the CPU in float32, of log-probabilities and of the gradient of one step."""


def run(bench: Bench) -> None:
    """Log-probabilities, one optimizer step, a checkpoint and an export, on a model small enough for both. A learner
    that is made at all has passed the packing check on its device."""
    with tempfile.TemporaryDirectory(prefix="rlm-env-check-") as root:
        folder = make_folder("tiny", Path(root) / "model", torch.device("cpu"))
        samples = rlm_samples(2_000, SHAPES["tiny"]["vocab_size"], tiny=True)
        reference = _learner(folder, "float32", torch.device("cpu"))
        expected = torch.tensor(list(chain.from_iterable(reference.score(samples))))
        gradient = step_gradient(reference, samples)
        for dtype, bound in BOUNDS.items():
            with bench.caught("check", dtype=dtype):
                learner = _learner(folder, dtype, bench.device)
                found = torch.tensor(list(chain.from_iterable(learner.score(samples))))
                bench.check(f"{dtype}: log-probabilities", distance(found, expected), bound)
                bench.check(
                    f"{dtype}: gradient of one step", distance(step_gradient(learner, samples), gradient), bound
                )
        with bench.caught("check", what="checkpoint"):
            bench.check(
                "a step after loading, against the same step without", _resumed(folder, bench, samples, root), 0.0
            )
        with bench.caught("check", what="export"):
            bench.check("keys of the export that the source has not, and the reverse", _keys(folder, bench, root), 0)


def _learner(folder: Path, dtype: str, device: torch.device) -> Learner:
    model = ModelConfig(dtype=dtype, device=device.type, pack_tokens=600, gradient_checkpointing=True)
    return Learner(folder, model, OptimizerConfig(lr=1e-3), LossConfig(), total_steps=10)


def _masters(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().float().flatten().cpu() for p in learner.optimizer.masters.values()])


def step_gradient(learner: Learner, samples: list[Sample]) -> torch.Tensor:
    """The gradient of one step, which is then applied."""
    kept: list[torch.Tensor] = []
    apply = learner.optimizer.step

    def keep(version: int) -> Update:
        # Joined here, into a copy: the step scales the gradients in place.
        kept.append(torch.cat([master.grad.float().flatten().cpu() for master in learner.optimizer.masters.values()]))
        return apply(version)

    with patch.object(learner.optimizer, "step", keep):
        learner.step(samples)
    return torch.cat(kept)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def _resumed(folder: Path, bench: Bench, samples: list[Sample], root: str) -> float:
    """Largest difference of weights between a run that goes on and one that was saved and loaded."""
    first = _learner(folder, "bfloat16", bench.device)
    first.step(samples)
    saved = Path(root) / "saved"
    saved.mkdir()
    first.save(saved)
    first.step(samples)
    second = _learner(folder, "bfloat16", bench.device)
    second.load(saved)
    second.step(samples)
    return (_masters(first) - _masters(second)).abs().max().item()


def _keys(folder: Path, bench: Bench, root: str) -> int:
    target = Path(root) / "exported"
    _learner(folder, "bfloat16", bench.device).export(target)
    return len(_tensor_names(folder) ^ _tensor_names(target))


def _tensor_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names.update(tensors.keys())
    return names
