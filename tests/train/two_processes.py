"""What tests of several processes do on one and on two: `torchrun -m tests.train.two_processes MODELS FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rlm_env.train.learner import distributed
from rlm_env.train.learner.config import LoraConfig, LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.samples import Sample, SampleKind
from rlm_env.train.learner.weight_files import WeightFiles

_COMMON = {"device": "cpu", "pack_tokens": 50, "threads": 1}
CASES = {
    "full": ModelConfig(dtype="float32", **_COMMON),
    "bfloat16": ModelConfig(dtype="bfloat16", gradient_checkpointing=True, **_COMMON),
    "lora": ModelConfig(dtype="float32", lora=LoraConfig(rank=4), **_COMMON),
    "experts": ModelConfig(dtype="float32", **_COMMON),
    "experts_lora": ModelConfig(dtype="float32", lora=LoraConfig(rank=4), **_COMMON),
    "reference": ModelConfig(dtype="bfloat16", **_COMMON),
    "tree": ModelConfig(dtype="float32", packing="tree", gradient_checkpointing=True, **_COMMON),
}
LOSSES = {"lora": LossConfig(kl_weight=0.1), "reference": LossConfig(kl_weight=0.1, kl_estimator="k3")}
"""A reference under the adapter, and a copy that is sharded too; the other cases have none."""
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.02}
"""Relative: sums over packs are formed in another order."""


def model_of(models: Path, case: str) -> Path:
    """The folder of a case's model: a dense one, or a mixture of experts."""
    return models / ("experts" if case.startswith("experts") else "dense")


def make_learner(models: Path, case: str) -> Learner:
    # An eps that is not far below the gradients: else the sign of a rounding error would decide an update.
    optimizer = OptimizerConfig(lr=1e-3, eps=1e-2, weight_decay=0.1, schedule="linear", max_grad_norm=0.5)
    return Learner(model_of(models, case), CASES[case], optimizer, LOSSES.get(case, LossConfig()), total_steps=6)


def make_samples(case: str) -> list[Sample]:
    """Samples of unequal lengths; those of `tree` begin alike."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index, size in enumerate((40, 30, 21, 14, 12, 9, 5)):
        ids = torch.randint(0, 97, (size,), generator=generator).tolist()
        if case == "tree":
            ids[:8] = range(20, 20 + min(size, 8))
        mask = [False, False] + [True] * (size - 2)
        logprobs = [0.0, 0.0] + [-4.5] * (size - 2)
        kind = SampleKind.SUB if index % 3 == 0 else SampleKind.ROOT
        samples.append(Sample(ids, mask, logprobs, str(index), 0, kind, 1.0, 0.7, (-1.0) ** index))
    return samples


def summary(metrics: dict[str, float]) -> dict[str, float]:
    """What does not depend on time and on the number of processes."""
    others = ("seconds/", "perf/", "packs", "tokens_computed", "tree_token_share")
    return {name: value for name, value in metrics.items() if not name.startswith(others)}


def work(models: Path, folder: Path) -> None:
    """Every case from beginning to end, led by the first process."""
    found: dict[str, Any] = {}
    with distributed.process_group(torch.device("cpu")):
        for case in CASES:
            with _counted_reads() as read:
                learner = make_learner(models, case)
            elements = distributed.gather(read)
            tensors = _keeps_gradients(learner)
            if distributed.rank() == 0:
                with distributed.leading(learner) as led:
                    found[case] = {**_lead(led, folder, case), "read": elements}
            else:
                distributed.follow(learner)
            weights = {n: distributed.whole(m.detach()) for n, m in learner.optimizer.masters.items()}
            if distributed.rank() == 0:
                torch.save({"gradients": tensors, "weights": weights}, folder / f"{case}.pt")
    if found:
        (folder / "results.json").write_text(json.dumps(found))


def _lead(learner: Any, folder: Path, case: str) -> dict[str, Any]:
    samples = make_samples(case)
    steps = [learner.step(samples) for _ in range(3)]
    scores = learner.score(samples)
    learner.export(folder / f"{case}-out")
    steps.append(learner.step(samples[:3]))
    saved = folder / f"{case}-saved"
    saved.mkdir()
    learner.save(saved)
    last = summary(learner.step(samples))
    learner.load(saved)
    found = {"metrics": [*map(summary, steps)], "packs": [step["packs"] for step in steps], "scores": scores}
    return {**found, "last": last, "again": summary(learner.step(samples))}


@contextmanager
def _counted_reads() -> Iterator[dict[str, int]]:
    """Elements that this process reads of the model's files: of tensors that it reads whole, and of others."""
    read, stored = WeightFiles.read, WeightFiles.read_as_stored
    counts, kind = {"whole": 0, "rows": 0}, "whole"

    def asked(self: WeightFiles, name: str, rows: slice | None = None) -> torch.Tensor:
        nonlocal kind
        kind = "whole" if rows is None else "rows"
        return read(self, name, rows)

    def counted(self: WeightFiles, key: str, rows: slice | None = None) -> torch.Tensor:
        found = stored(self, key, rows)
        counts[kind] += found.numel()
        return found

    WeightFiles.read, WeightFiles.read_as_stored = asked, counted
    try:
        yield counts
    finally:
        WeightFiles.read, WeightFiles.read_as_stored = read, stored


def _keeps_gradients(learner: Learner) -> dict[str, torch.Tensor]:
    """Filled with the gradients of the first step."""
    kept: dict[str, torch.Tensor] = {}
    step = learner.optimizer.step

    def look(number: int) -> Any:
        if not kept:
            kept.update({n: distributed.whole(m.grad).clone() for n, m in learner.optimizer.masters.items()})
        return step(number)

    learner.optimizer.step = look
    return kept


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
