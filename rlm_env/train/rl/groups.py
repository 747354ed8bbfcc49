"""A group of rollouts of one task, and the batch of groups that one optimizer step trains.

From rollouts to rewards, costs and advantages, and on to the samples that carry them. How rollouts are made and which
groups are dropped is decided in `scheduler.py`; the formulas of the advantages are in `advantage.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rlm_env.llm.weight_versions import oldest
from rlm_env.rollout import GroupMember, Rollout, StopReason
from rlm_env.train.learner.samples import Sample, rollout_samples
from rlm_env.train.rl.advantage import group_advantages
from rlm_env.train.rl.config import TrainConfig

UNFINISHED = frozenset(StopReason) - {StopReason.READY, StopReason.ERROR, StopReason.CANCELLED}
"""Stop reasons of rollouts that a limit ended."""


class DropReason(StrEnum):
    """Why a group is not trained."""

    ZERO_ADVANTAGE = "zero_advantage"
    """None of its advantages is above `groups.min_advantage`, so that it would teach next to nothing; or it differs in
    cost alone, as enough groups of the step do already (`Scheduler`)."""
    OFF_POLICY = "off_policy"
    """Its weights were more than `max_off_policy_steps` updates old. Only a resumed run has such groups."""
    FAILED = "failed"
    """Fewer than `min_size` of its rollouts have a score."""


@dataclass(slots=True)
class RolloutGroup:
    """Rollouts of one task, which are each other's baseline. Rollouts without a reward do not count."""

    number: int
    environment: str
    config: TrainConfig
    rollouts: list[Rollout] = field(default_factory=list)
    timed_out: bool = False
    """True if `groups.timeout` closed it before all of its rollouts had ended."""

    @property
    def rewards(self) -> list[float | None]:
        """The trained rewards, shape [rollouts]; None where a rollout failed or is left out."""
        return [reward_of(rollout, self.config.groups.unfinished) for rollout in self.rollouts]

    @property
    def advantages(self) -> list[float]:
        """Advantages of rewards less costs, shape [rollouts]; 0 where there is no reward."""
        costs = [cost_of(rollout, self.config.groups.cost) for rollout in self.rollouts]
        return group_advantages(self.rewards, self.config.advantage, costs)

    @property
    def scored(self) -> list[float]:
        """The rewards of the rollouts that have one."""
        return [reward for reward in self.rewards if reward is not None]

    @property
    def is_zero_advantage(self) -> bool:
        """True where the group teaches next to nothing: no advantage is above `groups.min_advantage`, and there is no
        teacher, who has something to say about every token."""
        if self.config.teacher is not None:
            return False
        return max(map(abs, self.advantages), default=0.0) <= self.config.groups.min_advantage

    @property
    def differs_in_cost_alone(self) -> bool:
        """True where the group has advantages, and would have none if costs did not count."""
        if not self.config.advantage.cost_weight or self.config.teacher is not None or self.is_zero_advantage:
            return False
        free = self.config.advantage.model_copy(update={"cost_weight": 0.0})
        return max(map(abs, group_advantages(self.rewards, free))) <= self.config.groups.min_advantage

    @property
    def oldest_policy_version(self) -> int:
        """Optimizer steps that the weights had seen when the first of its rollouts began."""
        return min(member_of(rollout).policy_version for rollout in self.rollouts)


@dataclass(slots=True)
class Batch:
    """The groups that one optimizer step trains, and those that were dropped while they were gathered."""

    step: int
    """1 for the first optimizer step."""
    groups: list[RolloutGroup]
    dropped: defaultdict[DropReason, list[RolloutGroup]] = field(default_factory=lambda: defaultdict(list))
    """Dropped groups, with the rollouts that they had by then."""
    seconds: float = 0.0
    """Time that the trainer waited for the batch."""
    seconds_overdue: float = 0.0
    """The part of it in which the batch was full, but a group in flight would have become too far off-policy."""
    engine_idle: float = 0.0
    """Share of the time since the batch before in which no rollout was in flight."""

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]

    def off_policy_steps(self, rollout: Rollout) -> int:
        """Updates between the weights that sampled a rollout's oldest token and those that it trains."""
        return self.step - 1 - oldest_version(rollout)

    def samples(self) -> list[Sample]:
        """The samples of all rewarded rollouts, with advantages. Raises ValueError where a rollout has no token ids."""
        samples = []
        for group in self.groups:
            weight = 1.0 if group.config.teacher is None else group.config.teacher.reward_weight
            for rollout, reward, advantage in zip(group.rollouts, group.rewards, group.advantages, strict=True):
                if reward is not None:
                    samples += _with_advantage(rollout_samples(rollout, group.config.samples), weight * advantage)
        return samples


def rollout_id(group: int, member: int) -> str:
    """The id of a group's rollout."""
    return f"{group:06}/{member}"


def oldest_version(rollout: Rollout) -> int:
    """Optimizer steps that the weights had seen that sampled its oldest token; where that is not known of a reply, when
    the rollout began."""
    begun = member_of(rollout).policy_version
    replies = [*rollout.turns, *(reply for call in rollout.sub_calls for reply in call.replies)]
    found = [oldest(reply.weight_versions) for reply in replies]
    return min((begun if version is None else version for version in found), default=begun)


def member_of(rollout: Rollout) -> GroupMember:
    """The place of a rollout in its training run. Raises ValueError where it is not from one."""
    if rollout.group is None:
        raise ValueError(f"rollout {rollout.id!r} was not made by a training run")
    return rollout.group


def reward_of(rollout: Rollout, unfinished: str) -> float | None:
    """The trained reward of a rollout: its score, or what `GroupsConfig.unfinished` says where a limit ended it."""
    if rollout.score is None:
        return None
    if rollout.stop_reason in UNFINISHED and unfinished != "score":
        return 0.0 if unfinished == "zero" else None
    return rollout.score.value


def cost_of(rollout: Rollout, unit: str) -> float:
    """The cost of a rollout: the number of its sub-calls, or all tokens of root and sub-LLMs."""
    if unit == "sub_calls":
        return float(len(rollout.sub_calls))
    usages = (rollout.root_usage, rollout.sub_usage)
    return float(sum(usage.prompt_tokens + usage.completion_tokens for usage in usages))


def _with_advantage(samples: Sequence[Sample], advantage: float) -> Sequence[Sample]:
    """A copy of a sample with its advantage."""
    for sample in samples:
        sample.advantage = advantage
    return samples
