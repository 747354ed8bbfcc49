"""The policy loss over packed tokens, and the divisor of its sum.

Covered: the surrogates of prime-rl, DAPO, Dr. GRPO, GSPO and CISPO; cross-entropy; their metrics. Not covered:
log-probabilities (`logprobs.py`), advantages (`rl/advantage.py`), and summing over packs and ranks (`learner.py`):
`policy_loss` returns a sum, so that a step divides once, by `loss_denominator` of all its samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rlm_env.train.learner.config import PRESETS, LossConfig
from rlm_env.train.learner.samples import Sample

MetricSums = dict[str, Tensor]
"""Sums over trained tokens, by metric."""


def policy_loss(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: LossConfig | None = None,
    sequence_ids: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, MetricSums]:
    """The loss summed over the trained tokens of a pack, with its gradient, and metrics.

    All tensors have the shape [tokens]. `logprobs`: the policy's, with gradient; `behavior_logprobs`: the engine's
    when it sampled, at the same temperature; `mask`: bool, the trained tokens (the values of other tokens are never
    used); `sequence_ids`: the sample of each token, needed for `gspo` and `norm = "sequence"` where there is more
    than one sample, all of whose tokens must be there; `weights`: the weight of each token, 1 by default.

    With x the log ratio of policy to behavior and A the advantage, a token's loss is
    `prime`: -A exp(x) + kl_tau x^2, without the first term if the probability has moved too far in the direction of
    A (DPPO; prime-rl 559b447, trainer/rl/loss.py); `dapo`, `dr_grpo`: -min(A exp(x), A clip(exp(x)));
    `gspo`: the same with x averaged over the sample; `cispo`: -A logprob min(exp(x), max_ratio), the ratio without
    gradient; `sft`: -logprob, with x taken as 0. `kl_tau x^2` is added to any but the last if set. With
    `norm = "sequence"` each token's loss is divided by the trained tokens of its sample. The caller divides the sum by
    `loss_denominator`.

    Metrics are sums over the trained tokens, without gradient: `tokens`; `ratio`; `log_ratio_abs`; `mismatch_kl`,
    exp(x) - x - 1; `clipped`, tokens whose policy term has no gradient (`cispo`: whose ratio is capped), of which
    `clipped_high` have a positive and `clipped_low` a negative advantage. Divided by `tokens` they are means.

    Raises ValueError if shapes differ, if the mask is not bool, and on an unknown preset.
    """
    config = config or LossConfig()
    _check_shapes(logprobs, behavior_logprobs, advantages, mask, sequence_ids, weights)
    logprobs = logprobs[mask]
    logprobs = logprobs.to(torch.promote_types(logprobs.dtype, torch.float32))
    behavior = behavior_logprobs[mask].to(logprobs.dtype)
    advantages = advantages[mask].to(logprobs.dtype)
    samples = None if sequence_ids is None else torch.unique(sequence_ids[mask], return_inverse=True)[1]

    log_ratio = logprobs - behavior
    if config.preset == "sft":
        log_ratio = torch.zeros_like(logprobs)
        loss, clipped = -logprobs, torch.zeros_like(logprobs, dtype=torch.bool)
    elif config.preset == "prime":
        loss, clipped = _dppo(logprobs, behavior, advantages, config)
    elif config.preset == "cispo":
        ratio, cap = torch.exp(log_ratio.detach()), config.setting("max_ratio")
        clipped = ratio > cap
        loss = -ratio.clamp(max=cap) * advantages * logprobs
    elif config.preset in ("dapo", "dr_grpo", "gspo"):
        exponent = _sample_means(log_ratio, samples) if config.preset == "gspo" else log_ratio
        loss, clipped = _clipped(exponent, advantages, config)
    else:
        raise ValueError(f"unknown loss preset {config.preset!r}; known are {', '.join(PRESETS)}")
    if config.kl_tau:
        loss = loss + config.kl_tau * log_ratio.square()
    if config.norm == "sequence":
        loss = loss / _sample_lengths(loss, samples)
    if weights is not None:
        loss = loss * weights[mask].to(loss.dtype)
    return loss.sum(), _metrics(log_ratio.detach(), clipped, advantages)


def loss_denominator(samples: Iterable[Sample], config: LossConfig | None = None) -> float:
    """The divisor of the sum of `policy_loss` over all packs of a step.

    `samples`: all samples of one optimizer step, over all ranks and packs. By `config.norm`: `token`, the weighted
    number of trained tokens; `sequence`, the weighted number of samples; `constant`, rollouts times `norm_tokens`.
    Raises ValueError if nothing is trained or `norm_tokens` is missing.
    """
    config = config or LossConfig()
    samples = list(samples)
    if config.norm == "token":
        total = sum(sample.weight * sample.trained_tokens for sample in samples)
    elif config.norm == "sequence":
        total = sum(sample.weight for sample in samples if any(sample.mask))
    elif config.norm_tokens is None:
        raise ValueError(
            'norm = "constant" needs norm_tokens: the most tokens that one rollout may train, for example the limit '
            "of its completion tokens"
        )
    else:
        total = config.norm_tokens * len({sample.rollout_id for sample in samples if any(sample.mask)})
    if not total:
        raise ValueError("nothing to train: no sample has a trained token")
    return float(total)


def _dppo(logprobs: Tensor, behavior: Tensor, advantages: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Policy gradient that masks tokens whose probability left the trust region in the direction of their advantage."""
    high, low = config.setting("dppo_mask_high"), config.setting("dppo_mask_low")
    moved = logprobs.detach().exp() - behavior.exp()
    dropped = torch.where(advantages > 0, moved > high, moved < -low)
    # The exponent of a dropped token is zeroed before exp: an infinite ratio times zero would be nan.
    ratio = torch.exp((logprobs - behavior).masked_fill(dropped, 0.0))
    return -advantages * ratio * ~dropped, dropped


def _clipped(log_ratio: Tensor, advantages: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """PPO's surrogate with a lower and an upper bound."""
    ratio = torch.exp(log_ratio)
    low, high = 1 - config.setting("clip_low"), 1 + config.setting("clip_high")
    loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    return loss, torch.where(advantages > 0, ratio > high, (ratio < low) & (advantages < 0)).detach()


def _sample_lengths(values: Tensor, samples: Tensor | None) -> Tensor:
    """For each token, the trained tokens of its sample."""
    if samples is None:
        return torch.full_like(values, max(len(values), 1))
    return torch.bincount(samples)[samples].to(values.dtype)


def _sample_means(values: Tensor, samples: Tensor | None) -> Tensor:
    """For each token, the mean over the trained tokens of its sample."""
    if samples is None:
        samples = torch.zeros(len(values), dtype=torch.long, device=values.device)
    sums = values.new_zeros(len(values)).index_add(0, samples, values)
    return sums[samples] / _sample_lengths(values, samples)


def _metrics(log_ratio: Tensor, clipped: Tensor, advantages: Tensor) -> MetricSums:
    """Sums over the trained tokens: ratios, mismatch, clipped shares."""
    ratio = torch.exp(log_ratio)
    return {
        "tokens": torch.tensor(float(len(ratio)), device=ratio.device),
        "ratio": ratio.sum(),
        "log_ratio_abs": log_ratio.abs().sum(),
        "mismatch_kl": (ratio - log_ratio - 1).sum(),
        "clipped": clipped.sum().to(ratio.dtype),
        "clipped_high": (clipped & (advantages > 0)).sum().to(ratio.dtype),
        "clipped_low": (clipped & (advantages < 0)).sum().to(ratio.dtype),
    }


def _check_shapes(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    sequence_ids: Tensor | None,
    weights: Tensor | None,
) -> None:
    """Raises ValueError where the arguments of the loss do not fit each other."""
    if logprobs.ndim != 1:
        raise ValueError(f"logprobs must have the shape [tokens], got {list(logprobs.shape)}")
    others = {
        "behavior_logprobs": behavior_logprobs,
        "advantages": advantages,
        "mask": mask,
        "sequence_ids": sequence_ids,
        "weights": weights,
    }
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != logprobs.shape:
            raise ValueError(
                f"{name} must have the shape of logprobs, {list(logprobs.shape)}, got {list(tensor.shape)}"
            )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")
