"""The tables of a configuration that the learner reads: model, optimizer, checkpoints, samples and loss.

Not covered: the run as a whole (`rl/config.py`, `sft/config.py`).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset = Literal["prime", "dapo", "dr_grpo", "gspo", "cispo", "sft"]
Norm = Literal["token", "sequence", "constant"]

PRESETS: dict[Preset, dict[str, Any]] = {
    "prime": {"norm": "token", "kl_tau": 1e-3, "dppo_mask_low": 0.2, "dppo_mask_high": 0.2},
    "dapo": {"norm": "token", "kl_tau": 0.0, "clip_low": 0.2, "clip_high": 0.28},
    "dr_grpo": {"norm": "constant", "kl_tau": 0.0, "clip_low": 0.2, "clip_high": 0.2},
    "gspo": {"norm": "sequence", "kl_tau": 0.0, "clip_low": 3e-4, "clip_high": 4e-4},
    "cispo": {"norm": "token", "kl_tau": 0.0, "max_ratio": 5.0},
    "sft": {"norm": "token"},
}
"""What a preset sets unless told otherwise. A setting that is missing here has no meaning for the preset.

Sources: prime-rl 559b447, `DefaultLossConfig`; DAPO (arXiv:2503.14476, section 4.1); Dr. GRPO (arXiv:2503.20783,
section 3.2), with the clip range of PPO; GSPO (arXiv:2507.18071, section 5.1); CISPO (arXiv:2506.13585, section
3.1) with the bound of ScaleRL (arXiv:2510.13786), as in TRL's documentation of `cispo`. `sft` is cross-entropy, for
replies that were chosen beforehand: it looks at neither advantages nor behavior logprobs.
"""


class Part(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(Part):
    """A low-rank adapter (peft) instead of all weights."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter; never the vocabulary head."""


class ModelConfig(Part):
    """How the policy is held and run by the trainer."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of forward and backward. Master weights, optimizer state and reductions are float32 in any case."""
    lora: LoraConfig | None = None
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    """transformers' `attn_implementation`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pack_tokens: int = Field(default=16_384, ge=1)
    """Token budget of one pack, which is one forward and backward."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the trainer; None leaves it to torch. An engine beside it needs some too."""


class OptimizerConfig(Part):
    """AdamW and its schedule."""

    lr: float = Field(default=1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    """Not of norms, biases and embeddings."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Of `lr`, at the last step of a schedule that falls."""


class CheckpointConfig(Part):
    """What is kept on disk to go on from."""

    every: int = Field(default=10, ge=1)
    """Steps between two checkpoints; the last step always has one."""
    keep: int = Field(default=2, ge=1)
    """How many are kept; older ones are removed."""


class SamplesConfig(Part):
    """Which tokens of a rollout are trained."""

    train_sub_calls: bool = True
    """Whether sub-LLM calls become samples too."""
    sub_weight: float = Field(default=1.0, gt=0)
    """What a token of a sub-call counts against one of the root, in the loss and in its denominator alike."""


class LossConfig(Part):
    """The policy loss: a preset and what is changed of it.

    Settings left out take the preset's value (`PRESETS`); one that the preset has no use for is an error.
    """

    preset: Preset = "prime"
    norm: Norm | None = None
    """What the sum over all tokens of an optimizer step is divided by: trained tokens; samples, each token first
    divided by the trained tokens of its sample; or rollouts times `norm_tokens`."""
    norm_tokens: int | None = Field(default=None, ge=1)
    """The constant of `norm = "constant"`: the most tokens that a rollout may train, as in Dr. GRPO."""
    kl_tau: float | None = Field(default=None, ge=0)
    """Weight of the squared log ratio, which holds the policy near the one that sampled."""
    dppo_mask_low: float | None = Field(default=None, ge=0)
    """With a negative advantage, a token whose probability fell by more than this is left out."""
    dppo_mask_high: float | None = Field(default=None, ge=0)
    """With a positive advantage, a token whose probability rose by more than this is left out."""
    clip_low: float | None = Field(default=None, ge=0, le=1)
    """The ratio is clipped below 1 - this."""
    clip_high: float | None = Field(default=None, ge=0)
    """The ratio is clipped above 1 + this."""
    max_ratio: float | None = Field(default=None, gt=0)
    """The ratio, as a weight without gradient, is capped at this."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        preset = values.get("preset", "prime") if isinstance(values, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return values  # the field's own error says what is wrong
        given = {name: value for name, value in values.items() if value is not None}
        return {**PRESETS[preset], **given}

    @model_validator(mode="after")
    def _fits_the_preset(self) -> Self:
        meant = {"preset", "norm_tokens", *PRESETS[self.preset]}
        for name in type(self).model_fields:
            if name not in meant and getattr(self, name) is not None:
                owners = " and ".join(preset for preset, values in PRESETS.items() if name in values)
                raise ValueError(f"{name} has no effect with preset {self.preset!r} (it belongs to {owners})")
        if self.norm_tokens is not None and self.norm != "constant":
            raise ValueError(f'norm_tokens has no effect with norm {self.norm!r}; it belongs to norm = "constant"')
        return self
