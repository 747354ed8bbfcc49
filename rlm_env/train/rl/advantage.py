"""From the rewards of a group of rollouts to their advantages: one value per rollout, relative to the group.

A rollout's advantage is copied to all of its samples in `groups.py`, which also says what a group is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal

from pydantic import Field

from rlm_env.runs.config_table import Table

_STD_EPSILON = 1e-4
"""Added to the standard deviation, as in TRL 1.16 (`GRPOTrainer`)."""


class AdvantageConfig(Table):
    """How the rewards of a group become advantages; the formulas are in `group_advantages`."""

    mode: Literal["grpo", "grpo_std", "rloo", "max_rl", "dr_grpo"] = "grpo"
    """`grpo`, `dr_grpo`: reward minus the group's mean. `grpo_std`: that, divided by the standard deviation. `rloo`:
    reward minus the mean of the others. `max_rl`: reward minus the mean, divided by the mean."""
    cost_weight: float = Field(default=0.0, ge=0, lt=1)
    """Largest part of a reward that a costly rollout loses against the cheapest of its group; 0: cost does not count.
    Below 1, so that a success is never worth less than a failure."""


def group_advantages(
    rewards: Sequence[float | None],
    config: AdvantageConfig | None = None,
    costs: Sequence[float | None] | None = None,
) -> list[float]:
    """One advantage per rollout of a group, in order.

    `rewards`: None for a rollout that failed. It is in neither mean nor count and gets 0. Fewer than two rewards, or
    equal rewards, give exactly 0 for all.
    `costs`: the cost of each rollout in any unit (tokens, sub-calls); needed with `cost_weight`, see `penalized`.

    With r a reward, m the mean and n the number of scored rollouts of the group:
    `grpo`, `dr_grpo`: r - m (arXiv:2402.03300 without the division by the standard deviation, as arXiv:2503.20783
    proposes and prime-rl does). `grpo_std`: (r - m) / (s + 1e-4), with s the sample standard deviation.
    `rloo`: r minus the mean of the others, n / (n - 1) times (r - m) (arXiv:2402.14740).
    `max_rl`: (r - m) / m, the gradient of maximum likelihood as n grows (arXiv:2602.02710).

    Raises ValueError on a number that is not finite, costs that are missing, negative or too few, and negative
    rewards where the formula has no meaning for them.
    """
    config = config or AdvantageConfig()
    scored = {index: float(reward) for index, reward in enumerate(rewards) if reward is not None}
    values = list(scored.values())
    if not all(map(math.isfinite, values)):
        raise ValueError(f"rewards must be finite, got {values}; give None for a rollout that failed")
    if config.cost_weight:
        if costs is None or len(costs) != len(rewards):
            raise ValueError(
                f"cost_weight = {config.cost_weight:g} needs one cost per rollout: {len(rewards)} rewards, "
                f"{'no' if costs is None else len(costs)} costs"
            )
        values = penalized(values, [costs[index] for index in scored], config.cost_weight)
    advantages = [0.0] * len(rewards)
    for index, advantage in zip(scored, _advantages(values, config.mode), strict=True):
        advantages[index] = advantage
    return advantages


def penalized(rewards: Sequence[float], costs: Sequence[float | None], weight: float) -> list[float]:
    """The rewards of a group less their costs: r * (1 - weight * (c - c_min) / c_max).

    The penalty is a share of the reward, so that a failure gains nothing by being cheap, and it is relative to the
    largest cost, so that small differences stay small. The score itself is not changed. Raises ValueError on negative
    rewards, and on costs that are missing, negative or not finite.
    """
    if any(reward < 0 for reward in rewards):
        raise ValueError(f"a cost penalty needs rewards of at least 0, got {list(rewards)}")
    known = [cost for cost in costs if cost is not None and math.isfinite(cost) and cost >= 0]
    if len(known) < len(costs):
        raise ValueError(f"the costs of scored rollouts must be finite and at least 0, got {list(costs)}")
    largest = max(known, default=0.0)
    if not largest:
        return list(rewards)
    least = min(known)
    return [reward * (1 - weight * (cost - least) / largest) for reward, cost in zip(rewards, known, strict=True)]


def _advantages(values: list[float], mode: str) -> list[float]:
    """The advantages of scored rollouts."""
    if len(values) < 2 or min(values) == max(values):
        return [0.0] * len(values)
    mean = fmean(values)
    centered = [value - mean for value in values]
    if mode == "grpo_std":
        scale = 1 / (stdev(values) + _STD_EPSILON)
    elif mode == "rloo":
        scale = len(values) / (len(values) - 1)
    elif mode == "max_rl":
        if min(values) < 0:
            raise ValueError(f"max_rl divides by the mean reward and needs rewards of at least 0, got {values}")
        scale = 1 / mean
    else:
        scale = 1.0
    return [value * scale for value in centered]
