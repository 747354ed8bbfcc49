"""The metrics of a step's rollouts, from the batch as it was gathered.

Metrics of the update itself come from `Learner.step`; writing them is the business of `report/metrics.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from rlm_env.averages import mean_or_zero
from rlm_env.evals.stats import CORRECT, pass_at_k
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.train.learner.samples import Sample, SampleKind
from rlm_env.train.rl.behavior_metrics import behavior_metrics, sampled_tokens
from rlm_env.train.rl.groups import UNFINISHED, Batch, DropReason, RolloutGroup


def batch_metrics(batch: Batch, samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics of a batch, all finite:

    - `reward/mean`, `reward/<environment>`, `reward_std`: the trained rewards. `advantage/mean`, `advantage/std`: per
      rollout, not per token. `score/mean`: the environments' scores, which differ
      from them where `groups.unfinished` says so. `pass@1`, `pass@<size>`: a reward of 1 is correct; of the
      groups that have as many rewards.
    - shares of the groups made for this step: `groups/dropped_zero_advantage`, `groups/dropped_off_policy`,
      `groups/dropped_failed`, and `groups/zero_advantage` (dropped or trained). `groups/cost_alone`: share of the
      trained groups that would have no advantage if costs did not count.
    - `dropped_<reason>/reward`, `dropped_<reason>/tokens`, `dropped_<reason>/off_policy_steps`: mean reward, sampled
      tokens and age of the scored rollouts in dropped groups, to be compared with those of the trained ones.
    - shares of the rollouts: `rollouts/failed`, `rollouts/truncated`, `rollouts/ready`. `rollouts/cut_off`: share of
      the trained groups' members that had not ended at `groups.timeout`, and are not trained.
    - `off_policy_steps/mean`, `off_policy_steps/max`: updates between sampling and training.
    - means per scored rollout: `turns/mean`, `sub_calls/mean`, `sub_calls/solved` (correct ones only),
      `seconds/rollout`, `tokens/per_rollout`.
    - `samples/root`, `samples/sub`, `tokens/root`, `tokens/sub` (trained tokens), `tokens/sub_share`, `tokens/sampled`.
    - what `behavior_metrics` finds.
    """
    scored = [(rollout, rollout.score) for rollout in batch.rollouts if rollout.score is not None]
    rollouts = [rollout for rollout, _ in scored]
    off_policy_steps = [batch.off_policy_steps(rollout) for rollout in rollouts]
    tokens = Counter[SampleKind]()
    for sample in samples:
        tokens[sample.kind] += sample.trained_tokens
    trained = sum(tokens.values())
    metrics = {
        **_rewards(batch, [score for _, score in scored]),
        **_groups(batch),
        **behavior_metrics(batch.rollouts),
        "rollouts/cut_off": mean_or_zero(1 - len(group.rollouts) / group.config.groups.size for group in batch.groups),
        "rollouts/failed": 1 - len(rollouts) / len(batch.rollouts),
        "rollouts/truncated": mean_or_zero(rollout.stop_reason in UNFINISHED for rollout in rollouts),
        "rollouts/ready": mean_or_zero(rollout.stop_reason is StopReason.READY for rollout in rollouts),
        "off_policy_steps/mean": mean_or_zero(off_policy_steps),
        "off_policy_steps/max": float(max(off_policy_steps, default=0)),
        "turns/mean": mean_or_zero(len(rollout.turns) for rollout in rollouts),
        "sub_calls/mean": mean_or_zero(len(rollout.sub_calls) for rollout in rollouts),
        "seconds/rollout": mean_or_zero(rollout.timing.total for rollout in rollouts),
        "tokens/per_rollout": mean_or_zero(map(sampled_tokens, rollouts)),
        "tokens/sampled": float(sum(map(sampled_tokens, rollouts))),
        "tokens/root": float(tokens[SampleKind.ROOT]),
        "tokens/sub": float(tokens[SampleKind.SUB]),
        "tokens/sub_share": tokens[SampleKind.SUB] / trained if trained else 0.0,
        "samples/root": float(sum(sample.kind is SampleKind.ROOT for sample in samples)),
        "samples/sub": float(sum(sample.kind is SampleKind.SUB for sample in samples)),
    }
    solved = [rollout for rollout, score in scored if score.value >= CORRECT]
    if solved:
        metrics["sub_calls/solved"] = mean_or_zero(len(rollout.sub_calls) for rollout in solved)
    return metrics


def _groups(batch: Batch) -> dict[str, float]:
    made = len(batch.groups) + sum(map(len, batch.dropped.values()))
    metrics = {f"groups/dropped_{reason}": len(batch.dropped[reason]) / made for reason in DropReason}
    zero_advantage = sum(group.is_zero_advantage for group in batch.groups)
    metrics["groups/zero_advantage"] = (zero_advantage + len(batch.dropped[DropReason.ZERO_ADVANTAGE])) / made
    metrics["groups/cost_alone"] = mean_or_zero(group.differs_in_cost_alone for group in batch.groups)
    for reason, groups in batch.dropped.items():
        if rollouts := _rewarded(groups):
            metrics[f"dropped_{reason}/reward"] = mean_or_zero(reward for group in groups for reward in group.scored)
            metrics[f"dropped_{reason}/tokens"] = mean_or_zero(map(sampled_tokens, rollouts))
            metrics[f"dropped_{reason}/off_policy_steps"] = mean_or_zero(map(batch.off_policy_steps, rollouts))
    return metrics


def _rewarded(groups: Iterable[RolloutGroup]) -> list[Rollout]:
    return [
        rollout
        for group in groups
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True)
        if reward is not None
    ]


def _rewards(batch: Batch, scores: Sequence[Score]) -> dict[str, float]:
    by_environment: dict[str, list[float]] = defaultdict(list)
    for group in batch.groups:
        by_environment[group.environment] += group.scored
    rewards = [reward for values in by_environment.values() for reward in values]
    advantages = [
        advantage
        for group in batch.groups
        for advantage, reward in zip(group.advantages, group.rewards, strict=True)
        if reward is not None
    ]
    metrics = {
        "reward/mean": mean_or_zero(rewards),
        "reward_std": stdev(rewards) if len(rewards) > 1 else 0.0,
        "advantage/mean": mean_or_zero(advantages),
        "advantage/std": stdev(advantages) if len(advantages) > 1 else 0.0,
        "score/mean": mean_or_zero(score.value for score in scores),
    }
    metrics |= {f"reward/{name}": mean_or_zero(values) for name, values in by_environment.items()}
    for k in {1, *(group.config.groups.size for group in batch.groups)}:
        groups = [group.scored for group in batch.groups if len(group.scored) >= k]
        if groups:
            chances = [pass_at_k(len(values), sum(value >= CORRECT for value in values), k) for values in groups]
            metrics[f"pass@{k}"] = fmean(chances)
    return metrics
