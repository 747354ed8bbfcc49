"""What a step's metrics say of its rollouts, before anything is trained on them.

Covered: rewards, pass@k, shares of outcomes, cost, tokens by role. Not covered: metrics of the update itself
(`Learner.step`), writing them (`metrics.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from rlm_env.evals.stats import CORRECT, pass_at_k
from rlm_env.rollout import Rollout, StopReason
from rlm_env.train.learner.samples import Sample, SampleKind
from rlm_env.train.rl.groups import UNFINISHED, Batch, member_of


def batch_metrics(batch: Batch, samples: Sequence[Sample]) -> dict[str, float]:
    """Numbers of the batch, all finite:

    - `reward/mean`, `reward/<environment>`: what was trained on; `score/mean`: the environments' scores, which differ
      where `groups.unfinished` says so; `pass@1`, `pass@<size>`, with "correct" meaning a reward of 1.
    - shares of the groups made for this step: `groups/flat`, `groups/stale`, `groups/failed` (replaced ones), and
      `groups/zero_variance` (no advantage, replaced or not).
    - shares of the rollouts: `rollouts/failed`, `rollouts/truncated`, `rollouts/ready`.
    - `staleness/mean`, `staleness/max`: updates between sampling and training.
    - means per scored rollout: `turns/mean`, `sub_calls/mean`, `sub_calls/solved` (of the correct ones),
      `seconds/rollout`, `tokens/per_rollout`.
    - `samples/root`, `samples/sub`, `tokens/root`, `tokens/sub` (trained tokens), `tokens/sub_share`, `tokens/sampled`.
    """
    scored = [rollout for rollout in batch.rollouts if rollout.score is not None]
    made = len(batch.groups) + batch.flat + batch.stale + batch.failed
    flat_kept = sum(group.flat for group in batch.groups)
    staleness = [batch.version - member_of(rollout).policy_version for rollout in scored]
    tokens = Counter[SampleKind]()
    for sample in samples:
        tokens[sample.kind] += sample.trained_tokens
    trained = sum(tokens.values())
    metrics = {
        **_rewards(batch, scored),
        "groups/flat": batch.flat / made,
        "groups/stale": batch.stale / made,
        "groups/failed": batch.failed / made,
        "groups/zero_variance": (batch.flat + flat_kept) / made,
        "rollouts/failed": 1 - len(scored) / len(batch.rollouts),
        "rollouts/truncated": _mean(rollout.stop_reason in UNFINISHED for rollout in scored),
        "rollouts/ready": _mean(rollout.stop_reason is StopReason.READY for rollout in scored),
        "staleness/mean": _mean(staleness),
        "staleness/max": float(max(staleness, default=0)),
        "turns/mean": _mean(len(rollout.turns) for rollout in scored),
        "sub_calls/mean": _mean(len(rollout.sub_calls) for rollout in scored),
        "seconds/rollout": _mean(rollout.timing.total for rollout in scored),
        "tokens/per_rollout": _mean(_sampled(rollout) for rollout in scored),
        "tokens/sampled": float(sum(map(_sampled, scored))),
        "tokens/root": float(tokens[SampleKind.ROOT]),
        "tokens/sub": float(tokens[SampleKind.SUB]),
        "tokens/sub_share": tokens[SampleKind.SUB] / trained if trained else 0.0,
        "samples/root": float(sum(sample.kind is SampleKind.ROOT for sample in samples)),
        "samples/sub": float(sum(sample.kind is SampleKind.SUB for sample in samples)),
    }
    solved = [rollout for rollout in scored if rollout.score.value >= CORRECT]
    if solved:
        metrics["sub_calls/solved"] = _mean(len(rollout.sub_calls) for rollout in solved)
    return metrics


def _rewards(batch: Batch, scored: Sequence[Rollout]) -> dict[str, float]:
    by_environment: dict[str, list[float]] = defaultdict(list)
    for group in batch.groups:
        by_environment[group.environment] += group.scored
    metrics = {
        "reward/mean": _mean(reward for rewards in by_environment.values() for reward in rewards),
        "score/mean": _mean(rollout.score.value for rollout in scored),
    }
    metrics |= {f"reward/{name}": _mean(values) for name, values in by_environment.items()}
    groups = [group.scored for group in batch.groups if group.scored]
    size = min(map(len, groups), default=0)
    for k in {1, size} - {0}:
        chances = [pass_at_k(len(values), sum(value >= CORRECT for value in values), k) for values in groups]
        metrics[f"pass@{k}"] = fmean(chances)
    return metrics


def _sampled(rollout: Rollout) -> int:
    return rollout.root_usage.completion_tokens + rollout.sub_usage.completion_tokens


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return float(fmean(values)) if values else 0.0
