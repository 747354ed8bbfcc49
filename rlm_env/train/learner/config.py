"""The tables of a configuration that the learner reads: model, optimizer, checkpoints, samples and loss.

Not covered: the run as a whole (`rl/config.py`, `sft/config.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rlm_env.runs.config_table import Table

Preset = Literal["prime", "dapo", "dr_grpo", "gspo", "cispo", "sft"]
Norm = Literal["token", "sequence", "rollout", "role", "constant"]
KLEstimator = Literal["unbiased", "k3"]
Beta = Annotated[float, Field(ge=0, lt=1)]

_CAP = {"ratio_cap": 1e3}
PRESETS: dict[Preset, dict[str, Any]] = {
    "prime": {"norm": "token", "kl_tau": 1e-3, "dppo_mask_low": 0.2, "dppo_mask_high": 0.2, **_CAP},
    "dapo": {"norm": "token", "kl_tau": 0.0, "clip_low": 0.2, "clip_high": 0.28, **_CAP},
    "dr_grpo": {"norm": "constant", "kl_tau": 0.0, "clip_low": 0.2, "clip_high": 0.2, **_CAP},
    "gspo": {"norm": "sequence", "kl_tau": 0.0, "clip_low": 3e-4, "clip_high": 4e-4, **_CAP},
    "cispo": {"norm": "token", "kl_tau": 0.0, "max_ratio": 5.0},
    "sft": {"norm": "token"},
}
"""The default settings of each preset. A preset has no use for the settings that it does not list, but for `OPTIONAL`,
which belong to all but `sft`.

Sources: prime-rl 559b447, `DefaultLossConfig`; DAPO (arXiv:2503.14476, section 4.1); Dr. GRPO (arXiv:2503.20783,
section 3.2), with the clip range of PPO; GSPO (arXiv:2507.18071, section 5.1); CISPO (arXiv:2506.13585, section
3.1) with the bound of ScaleRL (arXiv:2510.13786), as in TRL's documentation of `cispo`. `sft` is cross-entropy on
replies chosen beforehand: it uses neither advantages nor behavior logprobs.
"""

OPTIONAL = frozenset({"filter_token_ratio", "filter_sample_ratio", "kl_weight", "kl_estimator"})
"""Settings of any preset that has a ratio, off unless given: filters, and the KL term."""


class ModelError(ValueError):
    """The model cannot be trained as configured."""


class LoraConfig(Table):
    """Train a low-rank adapter (peft) instead of all weights."""

    rank: int = Field(default=16, ge=1)
    """Rank of the two factors of each adapted layer."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapter is scaled by alpha / rank."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers to adapt; never the vocabulary head. Of a mixture of experts whose weights are stacked
    in one tensor, the name of that tensor, such as `experts.down_proj`. `all-linear` takes all of both, but no router.
    """


class ModelConfig(Table):
    """How the trainer holds and runs the policy."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """The type of forward and backward. Master weights, optimizer state and reductions are always float32."""
    lora: LoraConfig | None = None
    """An adapter is trained instead of all weights; None: all weights."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    attention: str = "auto"
    """`auto`: attention by sample (`attention.py`), whose cost does not grow with the pack. Otherwise the name of an
    implementation in transformers, such as `sdpa` or `eager`, which mask the whole pack, or `flash_attention_2`."""
    packing: bool | Literal["auto", "tree"] = "auto"
    """Put several samples into one forward. `tree`: what they begin with in common, such as the prompt of a group, is
    computed once, with the same gradients. `auto`: unless the model's state leaks from sample to sample, as in hybrids
    with linear attention or convolutions, which are then trained one sample at a time; and as trees on a CPU, if the
    samples of a step share enough."""
    compile: bool = False
    """Compile norms and MLP of each decoder layer (torch.compile), so that each is a few kernels. The first step then
    takes half a minute longer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is a card."""
    pack_tokens: int = Field(default=16_384, ge=1)
    """Token budget of one pack (packed micro-batch), which is one forward and backward; of a tree, computed tokens."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the trainer; None: torch's default. An engine on the same machine needs some too."""

    @model_validator(mode="after")
    def _attention_knows_trees(self) -> Self:
        if self.packing == "tree" and self.attention != "auto":
            raise ValueError(
                f'packing = "tree" needs attention = "auto", since {self.attention!r} knows no trees; '
                'or set packing = "auto"'
            )
        return self


class OptimizerConfig(Table):
    """AdamW and its schedule."""

    lr: float = Field(default=1e-6, gt=0)
    """The learning rate, after warm-up and before decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay rates of AdamW's first and second moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Not applied to norms, biases and embeddings."""
    max_grad_norm: float | None = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 or None: never."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly to `lr`."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the last step of a decaying schedule, as a fraction of `lr`."""


class CheckpointConfig(Table):
    """How often the training state is saved, and how many checkpoints are kept."""

    every: int = Field(default=10, ge=1)
    """Steps between two checkpoints; the last step always has one."""
    keep: int = Field(default=2, ge=1)
    """The number of checkpoints to keep; older ones are removed."""


class SamplesConfig(Table):
    """Which tokens of a rollout are trained."""

    train_root: bool = True
    """Train the root's tokens; if false, those of sub-calls alone."""
    train_sub_calls: bool = True
    """Train the tokens of sub-LLM calls; if false, the root's alone."""
    sub_weight: float = Field(default=1.0, gt=0)
    """Weight of a sub-call's token relative to a root token, in the loss and in its denominator."""
    max_sub_calls: int | None = Field(default=None, ge=1)
    """Most samples of sub-calls that are trained of one rollout; None: all. Of more, as many are drawn at random, and
    each counts for those left out, so that the expected gradient stays the same and only its variance grows."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.train_root and not self.train_sub_calls:
            raise ValueError("train_root and train_sub_calls are both off: nothing would be trained")
        for name in ("max_sub_calls", "sub_weight"):
            if not self.train_sub_calls and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with train_sub_calls = false, which trains no sub-call at all")
        return self


class LossConfig(Table):
    """The policy loss: a preset, and changes to its settings.

    Settings left out take the preset's value (`PRESETS`); setting one that the preset has no use for is an error.
    """

    preset: Preset = "prime"
    """The formula, with the settings of its publication. `sft` is cross-entropy, for `rlm-env sft` alone."""
    norm: Norm | None = None
    """What counts alike in an optimizer step. `token`: every trained token. `sequence`: every sample, whatever its
    length; a root conversation counts as much as one sub-call. `rollout`: every rollout, however many sub-calls it
    made. `role`: in every rollout the root, and all of its sub-calls together with `samples.sub_weight`. `constant`:
    every token, but the divisor is the number of rollouts times `norm_tokens`."""
    norm_tokens: int | None = Field(default=None, ge=1)
    """The constant of `norm = "constant"`: the maximum number of trained tokens of a rollout, as in Dr. GRPO."""
    kl_tau: float | None = Field(default=None, ge=0)
    """Weight of the squared log ratio, which keeps the policy near the one that sampled."""
    kl_weight: float | None = Field(default=None, gt=0)
    """Weight of a KL term that keeps the policy near the initial weights; None: no such term. `beta` in TRL,
    `kl_loss_coef` in verl. It takes a frozen copy of the weights in the type of the forward, none under an adapter,
    and one more forward a step."""
    kl_estimator: KLEstimator | None = None
    """How it is estimated from the sampled tokens, with `kl_weight`. `unbiased` (the default): k3 times the ratio,
    whose gradient is that of the reverse KL. `k3`: without the ratio, as in GRPO's publication."""
    dppo_mask_low: float | None = Field(default=None, ge=0)
    """Masks a token of negative advantage whose probability fell by more than this."""
    dppo_mask_high: float | None = Field(default=None, ge=0)
    """Masks a token of positive advantage whose probability rose by more than this."""
    clip_low: float | None = Field(default=None, ge=0, le=1)
    """The ratio is clipped from below at 1 - clip_low."""
    clip_high: float | None = Field(default=None, ge=0)
    """The ratio is clipped from above at 1 + clip_high."""
    max_ratio: float | None = Field(default=None, gt=0)
    """Cap of the ratio, which is a weight without gradient."""
    ratio_cap: float | None = Field(default=None, gt=1)
    """Where the ratio is above this, the policy term is constant and teaches nothing: one token that the engine found
    next to impossible cannot make the loss infinite or outweigh a whole step. `delta` in TRL, the upper bound of the
    two-sided clip of INTELLECT-2 (arXiv:2505.07291), where it is near 1. With `kl_weight`, of any preset, it bounds how
    much likelier the reference finds a token too. 1e30 is as good as none."""
    filter_token_ratio: float | None = Field(default=None, gt=1)
    """Leaves out a sample with a token whose ratio is above this, or below its inverse. It stays in the divisor."""
    filter_sample_ratio: float | None = Field(default=None, gt=1)
    """Leaves out a sample whose ratio, the geometric mean over its tokens, is above this, or below its inverse."""

    def setting(self, name: str) -> float:
        """The value of a setting that the preset needs."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"preset {self.preset!r} has no {name}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Fills in the preset's values for what is not given."""
        preset = values.get("preset", "prime") if isinstance(values, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return values  # the field's own error explains it
        given = {name: value for name, value in values.items() if value is not None}
        kl = {"kl_estimator": "unbiased", **_CAP} if "kl_weight" in given else {}
        return {**PRESETS[preset], **kl, **given}

    @model_validator(mode="after")
    def _fits_the_preset(self) -> Self:
        """Refuses settings that have no effect with the preset."""
        known = {"preset", "norm_tokens", *PRESETS[self.preset]} | (set() if self.preset == "sft" else OPTIONAL)
        if self.kl_weight is not None:
            known |= _CAP.keys()
        for name in type(self).model_fields:
            if name not in known and getattr(self, name) is not None:
                if name in OPTIONAL:
                    raise ValueError(f"{name} has no effect with preset 'sft', which has no ratio")
                owners = " and ".join(preset for preset, values in PRESETS.items() if name in values)
                raise ValueError(f"{name} has no effect with preset {self.preset!r} (it belongs to {owners})")
        if self.kl_estimator is not None and self.kl_weight is None:
            raise ValueError("kl_estimator has no effect without kl_weight")
        if self.norm_tokens is not None and self.norm != "constant":
            raise ValueError(f'norm_tokens has no effect with norm {self.norm!r}; it belongs to norm = "constant"')
        return self
