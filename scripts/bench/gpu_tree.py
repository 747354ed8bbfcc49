"""Prefix trees on this device: whether they are right, and what they gain: the stage `tree` of `gpu.py`."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_checks import BOUNDS, distance, step_gradient
from gpu_shapes import SHAPES, group_samples, make_folder

from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.tree_attention import aligned_at_the_end

if TYPE_CHECKING:
    from gpu import Bench


def run(bench: Bench) -> None:
    """Against flat packs in float32 on the CPU; then the time of a step on groups with long prompts and short ones."""
    if bench.device.type == "cuda":
        bench.say("tree", varlen_is_aligned_at_the_end=aligned_at_the_end(bench.device))
    with tempfile.TemporaryDirectory(prefix="rlm-env-tree-") as root:
        folder = make_folder("tiny", Path(root) / "tiny", torch.device("cpu"))
        _check(bench, folder)
        shape = "0.6B" if bench.shapes == "real" else "tiny"
        if shape != "tiny":
            folder = make_folder(shape, Path(root) / shape, bench.device)
        for prompt in (2000, 500, 100):
            with bench.caught("tree", prompt=prompt):
                _time(bench, folder, shape, prompt)


def _check(bench: Bench, folder: Path) -> None:
    samples = group_samples(4, 5, 60, 20, SHAPES["tiny"]["vocab_size"])
    reference = _learner(folder, "float32", True, torch.device("cpu"), 600)
    expected = torch.tensor(list(chain.from_iterable(reference.score(samples))))
    gradient = step_gradient(reference, samples)
    for dtype, bound in BOUNDS.items():
        with bench.caught("tree", dtype=dtype):
            learner = _learner(folder, dtype, "tree", bench.device, 600)
            found = torch.tensor(list(chain.from_iterable(learner.score(samples))))
            bench.check(f"{dtype}: log-probabilities of trees", distance(found, expected), bound)
            bench.check(f"{dtype}: gradient of trees", distance(step_gradient(learner, samples), gradient), bound)


def _time(bench: Bench, folder: Path, shape: str, prompt: int) -> None:
    real = bench.shapes == "real"
    samples = group_samples(4, 8, prompt if real else prompt // 20, 300 if real else 15, SHAPES[shape]["vocab_size"])
    found: dict[str, Any] = {}
    for name, packing in (("flat", True), ("tree", "tree")):
        learner = _learner(folder, "bfloat16", packing, bench.device, 16_384 if real else 512)
        bench.forget_peak()
        found[f"{name}_tokens"] = int(learner.step(samples)["tokens_computed"])
        found[f"{name}_ms"] = bench.milliseconds(lambda learner=learner: learner.step(samples), 0, 3, 6.0)
        found[f"{name}_peak_gib"] = bench.peak_gib()
    ratios = {f"{what}_ratio": found[f"flat_{unit}"] / found[f"tree_{unit}"] for what, unit in _RATIOS.items()}
    bench.say("tree", model=shape, prompt=prompt, **found, **ratios)


_RATIOS = {"token": "tokens", "time": "ms"}


def _learner(folder: Path, dtype: Any, packing: Any, device: torch.device, pack_tokens: int) -> Learner:
    kind: Any = device.type
    model = ModelConfig(dtype=dtype, device=kind, packing=packing, pack_tokens=pack_tokens, gradient_checkpointing=True)
    return Learner(folder, model, OptimizerConfig(lr=1e-6), LossConfig(), total_steps=100)
