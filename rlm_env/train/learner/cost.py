"""What a forward and backward over samples costs, in floating-point operations.

It decides how packs are shared out over processes, and how much of a card is used. Matrix products and attention are
counted; norms, activations, recomputation and masked blocks are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from rlm_env.train.learner.forward import base_model, input_embeddings, text_settings, vocabulary_head
from rlm_env.train.learner.packing import Pack
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.tree import common_lengths

PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""Most bfloat16 operations a second, without sparsity, by a part of the card's name (NVIDIA's data sheets)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating-point operations of one forward and backward."""

    token: float
    """Of each token, in the matrix products of all layers."""
    trained: float
    """Of each trained token, in the vocabulary head."""
    square: float
    """Of attention, times the square of a sample's length: half of it, as attention is causal."""

    @classmethod
    def of_model(cls, model: nn.Module) -> Cost:
        """The cost for this model. A parameter takes 6 operations per token; under an adapter 4, since frozen weights
        need no gradient. A mixture of experts counts the experts that a token is sent to, a sliding window as full
        attention."""
        base: Any = base_model(model)
        text = text_settings(base.config)
        head, embeddings = vocabulary_head(model), input_embeddings(model).weight
        factor = 6 if head.requires_grad else 4
        body = 0.0
        for name, parameter in base.named_parameters():
            if ".lora_" not in name and parameter is not head and parameter is not embeddings:
                body += parameter.numel() * (_used_share(text) if ".experts." in name else 1.0)
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
        attending = sum("attention" in kind and "linear" not in kind for kind in kinds)
        # Two products forward and four backward, 2 operations per element each, over half of the square.
        square = 6.0 * text.num_attention_heads * width * attending
        return cls(factor * body, factor * head.numel(), square)

    def of(self, sample: Sample, shared: int = 0) -> float:
        """The cost of a sample of which the first `shared` tokens are computed for another one."""
        trained = sum(sample.mask[shared:])
        return (
            self.token * (len(sample) - shared) + self.trained * trained + self.square * (len(sample) ** 2 - shared**2)
        )

    def of_pack(self, pack: Pack) -> float:
        """The cost of all samples of a pack, or of their tree."""
        shared = [0] * len(pack.samples) if pack.tree is None else common_lengths(pack.samples)
        return sum(map(self.of, pack.samples, shared))


def peak_flops(card: str) -> float | None:
    """Most operations a second of a card of this name; None where it is not known."""
    return next((rate for name, rate in PEAK_FLOPS.items() if all(part in card for part in name.split())), None)


def _used_share(text: Any) -> float:
    """Share of a layer's routed experts that each token is sent to."""
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    experts = next((found for name in names if (found := getattr(text, name, None))), 1)
    return (getattr(text, "num_experts_per_tok", None) or experts) / experts
