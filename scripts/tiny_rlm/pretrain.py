"""Supervised training of tiny-rlm on the CPU, from its first weights (`shape.py`).

Each step draws examples from several streams, such as root conversations and sub-LLM conversations. The loss is the sum
of their means, each over the tokens of one draw that the policy has to produce. Examples are right-padded: under causal
attention no token sees the padding after it, so no attention mask is needed.
What is drawn depends on the seed and the step alone, so that a training that was interrupted goes on as if it had not
been. Not covered: the content of the conversations (`mix.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import Qwen3ForCausalLM

Example = tuple[list[int], list[bool]]
"""Token ids of a conversation, and a mask of those that the policy has to produce, both of shape [tokens]."""

SECOND_STAGE = 7 / 13
"""Share of the steps before it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Examples in groups; a draw takes a group by its weight, then one of its examples, `per_step` times."""

    groups: Sequence[Sequence[Example]]
    weights: Sequence[float]
    per_step: int
    prompt_weight: float = 0.0
    """Weight of the tokens that are not to be produced, relative to those that are. Questions and observations repeat
    numbers and names, so predicting them teaches copying."""
    by_conversation: bool = False
    """Whether all conversations weigh alike, long or short; if not, all tokens to produce do."""

    def draw(self, rng: np.random.Generator) -> list[Example]:
        """The examples of one step."""
        shares = np.array(self.weights) / sum(self.weights)
        groups = [self.groups[i] for i in rng.choice(len(self.groups), self.per_step, p=shares)]
        return [group[rng.integers(len(group))] for group in groups]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of the training. Both optimizers have the same learning rate."""

    steps: int
    learning_rate: float = 4e-3
    warmup: int = 20
    weight_decay: float = 0.05
    clip: float = 1.0
    piece: int = 4096
    """Tokens, padding included, that go through the model at once."""
    checkpoint_every: int = 50


def train(
    model: Qwen3ForCausalLM,
    stages: Sequence[Mapping[str, Stream]],
    config: TrainConfig,
    seed: int,
    checkpoint: Path,
    on_step: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> list[dict[str, float]]:
    """Trains in place, from the file `checkpoint` on if it is there, and returns each step's losses by stream (nats per
    token). `stages`: the streams up to `SECOND_STAGE`, and from there on. `on_step` gets the index and the losses of a
    step."""
    optimizers = _optimizers(model, config)
    losses: list[dict[str, float]] = []
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(stored["model"])
        for optimizer, state in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        losses = stored["losses"]
    model.train()
    for step in range(len(losses), config.steps):
        rng = np.random.default_rng([seed, step])
        streams = stages[step >= SECOND_STAGE * config.steps]
        losses.append({name: _backward(model, stream, stream.draw(rng), config) for name, stream in streams.items()})
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(step, config)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        on_step(step, losses[-1])
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            _store(checkpoint, model, optimizers, losses)
    model.eval()
    return losses


def _store(path: Path, model: Qwen3ForCausalLM, optimizers: list[torch.optim.Optimizer], losses: list[Any]) -> None:
    """Replaces the checkpoint in one step."""
    part = path.with_suffix(".part")
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": states, "losses": losses}, part)
    part.replace(path)


def _optimizers(model: Qwen3ForCausalLM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    ours = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in ours]
    rate, decay = config.learning_rate, config.weight_decay
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, a plateau, a fall to 0.6 at the second stage, and a slower one to 2 %."""
    fast = (config.steps * 10 / 13 - step) / (config.steps * 5 / 13)
    slow = 1.3 * (config.steps - step) / config.steps
    return max(0.02, min(1.0, (step + 1) / config.warmup, max(fast, slow)))


def _backward(model: Qwen3ForCausalLM, stream: Stream, examples: list[Example], config: TrainConfig) -> float:
    """Adds to the parameters' gradients that of the mean loss over the tokens to produce plus the weighted others;
    returns the mean loss over the tokens to produce."""
    total = sum(sum(mask[1:]) for _, mask in examples)
    own_loss = 0.0
    for part in _pieces(examples, config.piece):
        width = max(len(ids) for ids, _ in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        weights = torch.zeros(len(part), width)
        own = torch.zeros(len(part), width, dtype=torch.bool)
        for i, (tokens, mask) in enumerate(part):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            weights[i, : len(tokens)] = torch.tensor(mask).float().clamp_min(stream.prompt_weight)
            if stream.by_conversation:
                weights[i] *= total / len(examples) / sum(mask[1:])
            own[i, : len(tokens)] = torch.tensor(mask)
        used = weights[:, 1:] > 0  # only states before these go through the vocabulary head
        states = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[used]
        losses = F.cross_entropy(model.lm_head(states), ids[:, 1:][used], reduction="none")
        ((losses * weights[:, 1:][used]).sum() / total).backward()
        own_loss += losses.detach()[own[:, 1:][used]].sum().item() / total
    return own_loss


def _pieces(examples: list[Example], size: int) -> list[list[Example]]:
    """The examples by length, cut such that a padded piece has at most `size` tokens: little padding, same gradient."""
    pieces: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: len(example[0])):
        if pieces and len(example[0]) * (len(pieces[-1]) + 1) <= size:
            pieces[-1].append(example)
        else:
            pieces.append([example])
    return pieces
