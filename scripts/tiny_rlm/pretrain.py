"""Supervised training of tiny-rlm from random weights, on the CPU.

Each step takes a random draw of sessions (root turns) and one of reading tasks (sub-LLM turns). The loss is the sum of
two means, each over the tokens of one draw that the policy has to produce. Examples are right-padded: under causal
attention no token sees the padding after it, so no attention mask is needed.
Not covered: the content of the conversations (`sessions.py`, `reading.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tiny_rlm.tokenizer import END_OF_TURN, PAD

Example = tuple[list[int], list[bool]]
"""Token ids of a conversation, and a mask of those that the policy has to produce, both of shape [tokens]."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of the training. Both optimizers have the same learning rate."""

    steps: int = 600
    sessions_per_step: int = 24
    prompt_weight: float = 0.2
    """Weight of a session's other tokens, relative to those to produce. Questions and observations repeat numbers and
    names, so predicting them teaches copying early."""
    micro_batches: int = 4
    """Pieces into which the sessions of a step, sorted by length, are cut: less padding, same gradient."""
    readings_per_step: int = 24
    learning_rate: float = 4e-3
    warmup: int = 30
    weight_decay: float = 0.05
    clip: float = 1.0


def new_model(tokenizer: PreTrainedTokenizerFast, window: int, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 of about one million parameters, random weights, float32.

    The head size is 32 since vLLM's CPU attention supports no smaller one.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        bos_token_id=None,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=_initial_std(name, weight, config.num_hidden_layers))
    return model


def _initial_std(name: str, weight: torch.Tensor, layers: int) -> float:
    """Variance-preserving matrices, residual branches that start small, and an embedding that they do not drown: the
    model learns to copy from the question sooner than from the usual 0.02 everywhere."""
    if "embed" in name:
        return 0.08
    scale = weight.shape[1] ** -0.5
    return scale / math.sqrt(2 * layers) if name.endswith(("o_proj.weight", "down_proj.weight")) else scale


def train(
    model: Qwen3ForCausalLM,
    sessions: Sequence[Example],
    readings: Sequence[Example],
    config: TrainConfig,
    seed: int,
    on_step: Callable[[int, float, float], None] = lambda *_: None,
) -> None:
    """Trains in place. `on_step` gets the step's index and its session and reading loss (nats per token)."""
    rng = np.random.default_rng(seed)
    session_draws = _endless(rng, sessions, config.sessions_per_step)
    reading_draws = _endless(rng, readings, config.readings_per_step)
    optimizers = _optimizers(model, config)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, config)) for o in optimizers]
    model.train()
    for step in range(config.steps):
        session_loss = _backward(model, next(session_draws), config.micro_batches, config.prompt_weight)
        reading_loss = _backward(model, next(reading_draws), 1, 0.0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        on_step(step, session_loss, reading_loss)
    model.eval()


def _optimizers(model: Qwen3ForCausalLM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    ours = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in ours]
    return [
        torch.optim.Muon(
            matrices,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to 2 % of the learning rate."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _endless(rng: np.random.Generator, examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """Draws of `size` examples, each example once per pass over the data."""
    order: list[int] = []
    while True:
        while len(order) < size:
            order += rng.permutation(len(examples)).tolist()
        yield [examples[i] for i in order[:size]]
        order = order[size:]


def _backward(model: Qwen3ForCausalLM, examples: list[Example], pieces: int, prompt_weight: float) -> float:
    """Adds to the parameters' gradients that of the mean loss over the tokens to produce plus the weighted others;
    returns the mean loss over the tokens to produce."""
    examples = sorted(examples, key=lambda example: len(example[0]))
    total = sum(sum(mask[1:]) for _, mask in examples)
    size = -(-len(examples) // pieces)
    own_loss = 0.0
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        width = max(len(ids) for ids, _ in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        weights = torch.zeros(len(part), width)
        for i, (tokens, mask) in enumerate(part):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            weights[i, : len(tokens)] = torch.tensor(mask).float().clamp_min(prompt_weight)
        used = weights[:, 1:] > 0  # only states before these go through the vocabulary head
        states = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[used]
        losses = F.cross_entropy(model.lm_head(states), ids[:, 1:][used], reduction="none")
        weights = weights[:, 1:][used]
        ((losses * weights).sum() / total).backward()
        own_loss += losses.detach()[weights == 1].sum().item() / total
    return own_loss
