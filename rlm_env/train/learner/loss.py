"""The policy loss over packed tokens, and the divisor of its sum.

Covered: the surrogates of prime-rl, DAPO, Dr. GRPO, GSPO and CISPO; cross-entropy; the KL to a reference; caps, filters
and norms; their metrics. Not covered: log-probabilities (`logprobs.py`, `reference.py`), advantages
(`rl/advantage.py`), and summing over packs and ranks (`learner.py`): `policy_loss` returns a sum, so that a step
divides once, by `loss_denominator` of all its samples.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rlm_env.train.learner.config import PRESETS, LossConfig
from rlm_env.train.learner.samples import Sample, SampleKind

MetricSums = dict[str, Tensor]
"""Sums over trained tokens, by metric."""
LARGEST_LOG_RATIO = 60.0
"""In metrics a larger one counts as this, as a ratio 1e26: beyond 88 that would be infinite in float32, and what is not
finite is left out of metrics.jsonl, just where it is looked for."""


def policy_loss(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: LossConfig | None = None,
    sequence_ids: Tensor | None = None,
    weights: Tensor | None = None,
    reference_logprobs: Tensor | None = None,
) -> tuple[Tensor, MetricSums]:
    """The loss summed over the trained tokens of a pack, with its gradient, and metrics.

    All tensors have the shape [tokens]. `logprobs`: the policy's, with gradient; `behavior_logprobs`: the engine's
    when it sampled, at the same temperature; `mask`: bool, the trained tokens (the values of other tokens are never
    used); `sequence_ids`: the sample of each token, needed for `gspo`, `norm = "sequence"` and the filters where there
    is more than one sample, all of whose tokens must be there; `weights`: the weight of each token, 1 by default (see
    `sample_weights`); `reference_logprobs`: the reference policy's, needed with `kl_weight`.

    With x the log ratio of policy to behavior and A the advantage, a token's loss is `prime`: -A exp(x) + kl_tau x^2,
    without the first term if the probability has moved too far in the direction of A (DPPO; prime-rl 559b447,
    trainer/rl/loss.py); `dapo`, `dr_grpo`: -min(A exp(x), A clip(exp(x))); `gspo`: the same with x averaged over the
    sample; `cispo`: -A logprob min(exp(x), max_ratio), the ratio without gradient; `sft`: -logprob, with x taken as 0.
    `kl_tau x^2` is added to any but the last if set, and so is `kl_weight` times `reference_kl`. In `prime`, `dapo`,
    `dr_grpo` and `gspo` exp(x) is at most `ratio_cap`. With `norm = "sequence"` each token's loss is divided by the
    trained tokens of its sample. The caller divides the sum by `loss_denominator`.

    Metrics are sums over the trained tokens, without gradient: `tokens`; `ratio`; `log_ratio_abs`; `mismatch_kl`,
    exp(x) - x - 1; `clipped`, tokens whose policy term has no gradient (`cispo`: whose ratio is capped), of which
    `clipped_high` have a positive and `clipped_low` a negative advantage; `filtered`, tokens of samples that were left
    out; with `kl_weight`, `kl`, the k3 estimate of the KL from the policy to the reference. Divided by `tokens` they
    are means.

    Raises ValueError if shapes differ, if the mask is not bool, and on an unknown preset.
    """
    config = config or LossConfig()
    others = {
        "behavior_logprobs": behavior_logprobs,
        "advantages": advantages,
        "mask": mask,
        "sequence_ids": sequence_ids,
        "weights": weights,
        "reference_logprobs": reference_logprobs,
    }
    _check_shapes(logprobs, mask, others)
    if sequence_ids is None:
        samples, count = torch.zeros(int(mask.sum()), dtype=torch.long, device=mask.device), 1
    else:
        found, samples = torch.unique(sequence_ids[mask], return_inverse=True)
        count = len(found)
    reference = None if reference_logprobs is None else reference_logprobs[mask]
    loss, metrics = token_losses(
        logprobs[mask], behavior_logprobs[mask], advantages[mask], config, samples, count, reference
    )
    if weights is not None:
        loss = loss * weights[mask].to(loss.dtype)
    return loss.sum(), {"tokens": torch.tensor(float(len(loss))), **{name: v.sum() for name, v in metrics.items()}}


def token_losses(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    config: LossConfig,
    samples: Tensor,
    count: int,
    reference: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same token by token, [trained]: losses before weights, and metrics. `samples`: the index of each token's
    sample, below `count`. Nothing here waits for the device."""
    exact = torch.promote_types(logprobs.dtype, torch.float32)
    logprobs, behavior, advantages = (x.to(exact) for x in (logprobs, behavior_logprobs, advantages))
    seen = torch.zeros_like(behavior) if config.preset == "sft" else logprobs.detach() - behavior
    filtered = _filtered(seen, config, samples, count)
    if filtered is not None:  # before the exponent: an infinite ratio times zero would be nan
        logprobs, behavior = (x.masked_fill(filtered, 0.0) for x in (logprobs, behavior))
        reference = None if reference is None else reference.masked_fill(filtered, 0.0)
    log_ratio = logprobs - behavior
    if config.preset == "sft":
        loss, clipped = -logprobs, torch.zeros_like(logprobs, dtype=torch.bool)
    elif config.preset == "prime":
        loss, clipped = _dppo(logprobs, behavior, advantages, config)
    elif config.preset == "cispo":
        ratio, cap = torch.exp(log_ratio.detach()), config.setting("max_ratio")
        clipped = ratio > cap
        loss = -ratio.clamp(max=cap) * advantages * logprobs
    elif config.preset in ("dapo", "dr_grpo", "gspo"):
        exponent = _sample_means(log_ratio, samples, count) if config.preset == "gspo" else log_ratio
        loss, clipped = _clipped(exponent, advantages, config)
    else:
        raise ValueError(f"unknown loss preset {config.preset!r}; known are {', '.join(PRESETS)}")
    if config.kl_tau:
        loss = loss + config.kl_tau * log_ratio.square()
    further = {}
    if config.kl_weight:
        if reference is None:
            raise ValueError("kl_weight needs the log-probabilities of a reference")
        reference = reference.to(exact)
        loss = loss + config.kl_weight * reference_kl(logprobs, reference, log_ratio, config)
        further["kl"] = _k3(logprobs.detach(), reference, config)
    if filtered is not None:
        loss = loss.masked_fill(filtered, 0.0)
    if config.norm == "sequence":
        loss = loss / _sample_lengths(loss, samples, count)
    return loss, _metrics(seen, clipped, filtered, advantages) | further


def distilled_advantages(logprobs: Tensor, advantages: Tensor, teacher_logprobs: Tensor, weights: Tensor) -> Tensor:
    """The advantage of each token where a teacher is asked, without gradient: advantages + weights (t - p), with t and
    p the log-probabilities of teacher and policy. All tensors are [tokens].

    This is on-policy distillation: p - t at a token that the policy sampled estimates the reverse KL from policy to
    teacher, whose policy gradient follows (Lu, Thinking Machines Lab 2025,
    thinkingmachines.ai/blog/on-policy-distillation, with discount 0; `incorporate_kl_penalty` of tinker-cookbook takes
    p as it was when sampled). As in prime-rl 559b447 (`ref_kl_loss_fn` in trainer/rl/loss.py), p is that of the policy
    now, and the ratio to the policy that sampled stays in the loss.
    """
    return advantages + weights * (teacher_logprobs - logprobs.detach())


def reference_kl(logprobs: Tensor, reference: Tensor, log_ratio: Tensor, config: LossConfig) -> Tensor:
    """The KL from the policy to a reference, estimated at sampled tokens, with gradient; all tensors are [tokens].

    With y the reference's log-probability minus the policy's, k3 = exp(y) - y - 1 is never negative, and its mean over
    the policy's own samples is the KL (Schulman 2020, joschu.net/blog/kl-approx.html; GRPO, arXiv:2402.03300, equation
    4; `beta` of TRL 1.16, `low_var_kl` of verl). Its gradient is not that of the KL. That of k3 exp(x) is, with x the
    log ratio of policy to behavior, for samples of any behavior (DeepSeek-V3.2, arXiv:2512.02556;
    `use_bias_correction_kl` of TRL, its default): `kl_estimator = "unbiased"`. Both exponentials are capped at
    `ratio_cap`, so that one token that the reference finds far likelier does not decide a step. verl bounds y by 20;
    TRL caps neither, and with `ratio_cap = 1e30` nor do we.
    """
    k3 = _k3(logprobs, reference, config)
    return k3 if config.kl_estimator == "k3" else _capped(log_ratio, config)[0] * k3


def _k3(logprobs: Tensor, reference: Tensor, config: LossConfig) -> Tensor:
    apart = (reference - logprobs).clamp(max=math.log(config.setting("ratio_cap")))
    return torch.exp(apart) - apart - 1


def loss_denominator(samples: Iterable[Sample], config: LossConfig | None = None) -> float:
    """The divisor of the sum of `policy_loss` over all packs of a step.

    `samples`: all samples of one optimizer step, over all ranks and packs. By `config.norm`: `token`, the weighted
    number of trained tokens; `sequence`, the weighted number of samples; `rollout`, the number of rollouts; `role`, the
    weighted number of roles in rollouts; `constant`, rollouts times `norm_tokens`. Where sub-calls were drawn, those
    left out are counted. Raises ValueError if nothing is trained or `norm_tokens` is missing.
    """
    config = config or LossConfig()
    samples = [sample for sample in samples if any(sample.mask)]
    rollouts = len({sample.rollout_id for sample in samples})
    if config.norm == "token":
        total = sum(_tokens(sample) for sample in samples)
    elif config.norm == "sequence":
        total = sum(sample.weight * sample.stands_for for sample in samples)
    elif config.norm == "rollout":
        total = rollouts
    elif config.norm == "role":
        total = sum({(sample.rollout_id, sample.kind): sample.weight for sample in samples}.values())
    elif config.norm_tokens is None:
        raise ValueError(
            'norm = "constant" needs norm_tokens: the most tokens that one rollout may train, for example the limit '
            "of its completion tokens"
        )
    else:
        total = config.norm_tokens * rollouts
    if not total:
        raise ValueError("nothing to train: no sample has a trained token")
    return float(total)


def sample_weights(samples: Sequence[Sample], config: LossConfig) -> list[float]:
    """The weight of each token of each sample in `policy_loss`, [samples]; `samples` are those of a whole step. It is
    the sample's own, and with `norm = "rollout"` or `"role"` divided by the tokens that its rollout, or its role in the
    rollout, trains."""
    own = [sample.weight * sample.stands_for for sample in samples]
    if config.norm not in ("rollout", "role"):
        return own
    by_role = config.norm == "role"
    keys = [(sample.rollout_id, sample.kind if by_role else None) for sample in samples]
    totals: defaultdict[tuple[str, SampleKind | None], float] = defaultdict(float)
    for key, sample in zip(keys, samples, strict=True):
        totals[key] += _tokens(sample) / (sample.weight if by_role else 1.0)
    return [weight / (totals[key] or 1.0) for key, weight in zip(keys, own, strict=True)]


def _tokens(sample: Sample) -> float:
    """The weighted number of trained tokens that a sample stands for in a divisor."""
    tokens = sample.trained_tokens if sample.counted_tokens is None else sample.counted_tokens
    return sample.weight * sample.stands_for * tokens


def _dppo(logprobs: Tensor, behavior: Tensor, advantages: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Policy gradient that masks tokens whose probability left the trust region in the direction of their advantage."""
    high, low = config.setting("dppo_mask_high"), config.setting("dppo_mask_low")
    moved = logprobs.detach().exp() - behavior.exp()
    dropped = torch.where(advantages > 0, moved > high, moved < -low)
    # The exponent of a dropped token is zeroed before exp: an infinite ratio times zero would be nan.
    ratio, capped = _capped((logprobs - behavior).masked_fill(dropped, 0.0), config)
    return -advantages * ratio * ~dropped, dropped | capped


def _clipped(log_ratio: Tensor, advantages: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """PPO's surrogate with a lower and an upper bound, and `ratio_cap` beyond."""
    ratio, capped = _capped(log_ratio, config)
    low, high = 1 - config.setting("clip_low"), 1 + config.setting("clip_high")
    loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    bounded = torch.where(advantages > 0, ratio > high, (ratio < low) & (advantages < 0)).detach()
    return loss, bounded | capped


def _capped(log_ratio: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """The ratio, constant beyond `ratio_cap`, and where that is so. The exponent is capped: exp must not overflow."""
    if config.ratio_cap is None:
        return torch.exp(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool)
    bound = math.log(config.ratio_cap)
    return torch.exp(log_ratio.clamp(max=bound)), log_ratio.detach() > bound


def _filtered(log_ratio: Tensor, config: LossConfig, samples: Tensor, count: int) -> Tensor | None:
    """The tokens of samples that a filter leaves out; None without filters."""
    found = None
    if config.filter_sample_ratio is not None:
        found = _sample_means(log_ratio, samples, count).abs() > math.log(config.filter_sample_ratio)
    if config.filter_token_ratio is not None:
        outside = (log_ratio.abs() > math.log(config.filter_token_ratio)).to(log_ratio.dtype)
        here = log_ratio.new_zeros(count).index_add(0, samples, outside)[samples] > 0
        found = here if found is None else found | here
    return found


def _sample_lengths(values: Tensor, samples: Tensor, count: int) -> Tensor:
    """For each token, the trained tokens of its sample."""
    return values.new_zeros(count).index_add(0, samples, torch.ones_like(values))[samples]


def _sample_means(values: Tensor, samples: Tensor, count: int) -> Tensor:
    """For each token, the mean over the trained tokens of its sample."""
    sums = values.new_zeros(count).index_add(0, samples, values)
    return sums[samples] / _sample_lengths(values.detach(), samples, count)


def _metrics(log_ratio: Tensor, clipped: Tensor, filtered: Tensor | None, advantages: Tensor) -> dict[str, Tensor]:
    """Of each trained token: ratio, mismatch, whether it was clipped or left out."""
    bounded = log_ratio.clamp(max=LARGEST_LOG_RATIO)
    ratio = torch.exp(bounded)
    return {
        "ratio": ratio,
        "log_ratio_abs": log_ratio.abs(),
        "mismatch_kl": ratio - bounded - 1,
        "clipped": clipped.to(ratio.dtype),
        "clipped_high": (clipped & (advantages > 0)).to(ratio.dtype),
        "clipped_low": (clipped & (advantages < 0)).to(ratio.dtype),
        "filtered": torch.zeros_like(ratio) if filtered is None else filtered.to(ratio.dtype),
    }


def _check_shapes(logprobs: Tensor, mask: Tensor, others: dict[str, Tensor | None]) -> None:
    """Raises ValueError where the arguments of the loss do not fit each other."""
    if logprobs.ndim != 1:
        raise ValueError(f"logprobs must have the shape [tokens], got {list(logprobs.shape)}")
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != logprobs.shape:
            raise ValueError(
                f"{name} must have the shape of logprobs, {list(logprobs.shape)}, got {list(tensor.shape)}"
            )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")
