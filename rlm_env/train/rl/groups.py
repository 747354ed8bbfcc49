"""A group of rollouts of one task, and the batch of groups that one optimizer step trains.

Covered: rewards, costs, which groups teach nothing, the samples of a batch with their advantages. Not covered: how
rollouts are made (`scheduler.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlm_env.rollout import GroupMember, Rollout, StopReason
from rlm_env.train.learner.samples import Sample, rollout_samples
from rlm_env.train.rl.advantage import group_advantages
from rlm_env.train.rl.config import TrainConfig

UNFINISHED = frozenset(StopReason) - {StopReason.READY, StopReason.ERROR, StopReason.CANCELLED}
"""Stop reasons of rollouts that a limit ended."""


@dataclass(slots=True)
class RolloutGroup:
    """Rollouts of one task. One without a reward is in neither mean nor count."""

    number: int
    environment: str
    config: TrainConfig
    rollouts: list[Rollout] = field(default_factory=list)

    @property
    def rewards(self) -> list[float | None]:
        """Shape [rollouts]: what is trained on; None where a rollout failed, or is left out."""
        return [reward_of(rollout, self.config.groups.unfinished) for rollout in self.rollouts]

    @property
    def advantages(self) -> list[float]:
        """Shape [rollouts]: of rewards less costs; 0 where there is no reward."""
        costs = [cost_of(rollout, self.config.groups.cost) for rollout in self.rollouts]
        return group_advantages(self.rewards, self.config.advantage, costs)

    @property
    def scored(self) -> list[float]:
        """The rewards that there are."""
        return [reward for reward in self.rewards if reward is not None]

    @property
    def flat(self) -> bool:
        """Whether it teaches nothing, since every advantage is 0: all scored alike, at the same cost if that counts."""
        return not any(self.advantages)

    @property
    def version(self) -> int:
        """Updates of the weights that its oldest rollout began with."""
        return min(member_of(rollout).policy_version for rollout in self.rollouts)


@dataclass(slots=True)
class Batch:
    """What one optimizer step trains, and what was thrown away to get it."""

    step: int
    """1 for the first optimizer step."""
    groups: list[RolloutGroup]
    flat: int = 0
    """Groups that all scored alike and were replaced."""
    stale: int = 0
    """Groups whose rollouts were too old and were replaced."""
    failed: int = 0
    """Groups in which too few rollouts had a score and were replaced."""
    seconds: float = 0.0
    """Time that the trainer waited for it."""

    @property
    def version(self) -> int:
        """Updates of the weights that it trains."""
        return self.step - 1

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]

    def samples(self) -> list[Sample]:
        """The samples of all scored rollouts, with advantages. Raises ValueError where a rollout has no token ids."""
        samples = []
        for group in self.groups:
            for rollout, reward, advantage in zip(group.rollouts, group.rewards, group.advantages, strict=True):
                if reward is not None:
                    samples += _with_advantage(rollout_samples(rollout, group.config.samples), advantage)
        return samples


def member_of(rollout: Rollout) -> GroupMember:
    """The place of a rollout in its training run. Raises ValueError where it is not from one."""
    if rollout.group is None:
        raise ValueError(f"rollout {rollout.id!r} was not made by a training run")
    return rollout.group


def reward_of(rollout: Rollout, unfinished: str) -> float | None:
    """What a rollout is trained on: its score, or what `GroupsConfig.unfinished` says where a limit ended it."""
    if rollout.score is None:
        return None
    if rollout.stop_reason in UNFINISHED and unfinished != "score":
        return 0.0 if unfinished == "zero" else None
    return rollout.score.value


def cost_of(rollout: Rollout, unit: str) -> float:
    """What a rollout cost: the number of its sub-calls, or all tokens of root and sub-LLMs."""
    if unit == "sub_calls":
        return float(len(rollout.sub_calls))
    usages = (rollout.root_usage, rollout.sub_usage)
    return float(sum(usage.prompt_tokens + usage.completion_tokens for usage in usages))


def _with_advantage(samples: Sequence[Sample], advantage: float) -> Sequence[Sample]:
    for sample in samples:
        sample.advantage = advantage
    return samples
