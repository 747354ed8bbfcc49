"""A trainer for tests of what brings its weights to an engine: a model that can be changed, scored and exported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rlm_env.train.learner.forward import pack_logprobs
from rlm_env.train.learner.packing import collate
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.weight_stream import WeightStream
from rlm_env.train.sync.sync_check import BothLogprobs, SyncCheck, compare
from rlm_env.train.sync.weight_sync import WeightSync

BESIDE_WEIGHTS = ("*.json", "*.jinja")


async def differences(sync: WeightSync) -> SyncCheck:
    """How far engine and trainer are from each other, without an update."""
    async with sync._engine.paused(30):
        return compare(BothLogprobs(await sync._engine_logprobs(), await sync._trainer_logprobs()), sync._last_check)


class StandIn:
    """Holds the model of `folder` in float32; forward passes are in `dtype`. `lora`: settings of a peft adapter."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, lora: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.dtype = dtype
        self.version = 0
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if lora is not None:
            import peft

            self.model = peft.get_peft_model(self.model, peft.LoraConfig(**lora))

    def step(self, size: float = 0.02) -> None:
        """Moves every trained tensor by `size` times its own scale, in a direction that the version decides."""
        self.version += 1
        generator = torch.Generator().manual_seed(self.version)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter += size * noise * parameter.std().clamp(min=0.05)

    @torch.no_grad()
    def score(self, samples: list[Sample]) -> list[list[float]]:
        scores = []
        for sample in samples:
            pack = collate([sample])
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                logprobs = pack_logprobs(self.model.eval(), pack, sample.temperature).logprobs
            scores.append(logprobs[pack.mask].tolist())
        return scores

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        for pattern in BESIDE_WEIGHTS:
            for file in self.folder.glob(pattern):
                shutil.copy(file, folder / file.name)

    def hand_over(self, take: Callable[[WeightStream], None]) -> None:
        take(WeightStream(self.model, lambda tensor: tensor.detach(), self.dtype))

    def export_adapter(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
