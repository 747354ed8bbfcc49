"""What samples, advantages and the loss can be told.

Covered: the keys, their defaults by preset, which of them go together. Not covered: the run as a whole.
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


class SamplesConfig(BaseModel):
    """Which tokens of a rollout are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_sub_calls: bool = True
    """Whether sub-LLM calls become samples too."""
    sub_weight: float = Field(default=1.0, gt=0)
    """What a token of a sub-call counts against one of the root, in the loss and in its denominator alike."""


class AdvantageConfig(BaseModel):
    """How the rewards of a group become advantages; the formulas stand in `advantage.py`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["grpo", "grpo_std", "rloo", "max_rl", "dr_grpo"] = "grpo"
    cost_weight: float = Field(default=0.0, ge=0, lt=1)
    """Largest part of a reward that a costly rollout loses against the cheapest of its group; 0: cost is not
    looked at. Below 1, so that a success is never worth less than a failure."""


class LossConfig(BaseModel):
    """The policy loss: a preset and what is changed of it.

    Settings left out take the preset's value (`PRESETS`); one that the preset has no use for is an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
