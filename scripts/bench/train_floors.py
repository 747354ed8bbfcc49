"""The floors of a training step: the least work that samples the same tokens and makes the same update.

The first is vLLM alone, given everything at once. The second is transformers and torch alone, on the same packs, with
attention by sample, or with a dense mask over the pack, which is what transformers does by itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import AttentionInterface

from rlm_env.llm.token_batches import NEUTRAL_SAMPLING
from rlm_env.train.learner.packing import Pack, collate, pack_samples
from rlm_env.train.learner.samples import Sample
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.sync.engine import TrainEngine

Reply = tuple[list[int], int]
"""The token ids of a prompt, and the number of tokens sampled after it."""
FLOOR = "floor"
DENSE = "sdpa"
MOST_PROMPTS = 1024
"""In one request: more are refused by vLLM."""


async def sample_flat_out(engine: TrainEngine, replies: Sequence[Reply], round_name: str) -> float:
    """Seconds for as many tokens after the same prompts: no turn waits for another, no REPL, no scheduler.

    Prompts with an equal number of tokens are one request, up to what vLLM takes in one, and all requests are in flight
    at once, the longest first. Log-probabilities come with them, as training needs. `round_name`: rounds share nothing
    in the prefix cache.
    """
    by_length: dict[int, list[list[int]]] = defaultdict(list)
    for prompt, sampled in replies:
        by_length[sampled].append(prompt)

    async def ask(tokens: int, prompts: list[list[int]]) -> int:
        body = {"prompt": prompts, "max_tokens": tokens, "ignore_eos": True, "temperature": 1.0, "logprobs": 0}
        reply = await engine.completions({**body, **NEUTRAL_SAMPLING, "top_p": 1.0, "cache_salt": round_name})
        return reply["usage"]["completion_tokens"]

    requests = [
        (tokens, prompts[first : first + MOST_PROMPTS])
        for tokens, prompts in sorted(by_length.items(), reverse=True)
        for first in range(0, len(prompts), MOST_PROMPTS)
    ]
    start = time.perf_counter()
    sampled = await asyncio.gather(*(ask(*request) for request in requests))
    seconds = time.perf_counter() - start
    assert sum(sampled) == sum(tokens for _, tokens in replies), "the engine sampled another number of tokens"
    return seconds


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, lengths: list[int], **options: Any
) -> tuple[Tensor, None]:
    """Causal attention, one sample after the other."""
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    grouped = query.shape[1] != key.shape[1]
    found = [F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=grouped) for part in parts]
    return torch.cat(found, 2).transpose(1, 2), None


AttentionInterface.register(FLOOR, _attention)


class PlainTrainer:
    """Forward, backward, clipping and AdamW in a plain loop: policy gradient with the ratio, nothing measured,
    nothing checked, in float32 on the CPU. `attention`: by sample (`FLOOR`) or with a mask over the pack (`DENSE`)."""

    def __init__(self, folder: Path, config: TrainConfig, attention: str = FLOOR) -> None:
        self.config = config
        self.attention = attention
        options = config.optimizer
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention, local_files_only=True
        ).train()
        self.adam = torch.optim.AdamW(self.model.parameters(), options.lr, options.betas, weight_decay=0.0)

    def packs(self, samples: Sequence[Sample]) -> list[Pack]:
        """The learner's packs of the same samples. Making them is not part of the floor."""
        run = [sample for sample in samples if sample.trained_tokens and (sample.advantage or self.config.loss.kl_tau)]
        return [collate(pack) for pack in pack_samples(run, self.config.trainer.pack_tokens)]

    def step(self, packs: Sequence[Pack]) -> None:
        """One update on all packs."""
        tokens = sum(int(pack.mask.sum()) for pack in packs)
        for pack in packs:
            (self._loss(pack) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.max_grad_norm or math.inf)
        self.adam.step()
        self.adam.zero_grad()

    def _loss(self, pack: Pack) -> Tensor:
        trained = pack.mask.nonzero()[:, 0]
        inputs: dict[str, Any] = {"input_ids": pack.input_ids, "position_ids": pack.position_ids}
        if self.attention == FLOOR:
            inputs["lengths"] = [len(sample) for sample in pack.samples]
        logits = self.model(**inputs, use_cache=False, logits_to_keep=trained - 1).logits[0]
        temperatures = pack.spread([sample.temperature for sample in pack.samples])[trained]
        targets = pack.input_ids[0, trained]
        logprobs = torch.log_softmax(logits / temperatures[:, None], dim=-1).gather(1, targets[:, None])[:, 0]
        advantages = pack.spread([sample.advantage for sample in pack.samples])[trained]
        return -(advantages * torch.exp(logprobs - pack.behavior_logprobs[trained])).sum()
