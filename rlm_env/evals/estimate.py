"""What an eval will take, from the rollouts of it that are known: calls, tokens, seconds and money, with intervals.

Rollouts that are left are taken to be like the known ones of the same scaffold and context length. Contexts whose
lengths differ by less than a factor (`summary.SAME_LENGTH`) count as equally long; nothing is said of lengths that no
known rollout has. Intervals are 95 % prediction intervals by Student's t: the scatter between tasks, relative to the
mean of their length, is pooled over the lengths, and a task's repeats are taken to be alike, which is the careful side.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.rollout_stats import Key, RolloutStats
from rlm_env.evals.stats import student_quantile
from rlm_env.evals.summary import SAME_LENGTH
from rlm_env.task import Task, context_length

QUANTITIES: dict[str, Callable[[RolloutStats], float | None]] = {
    "calls": lambda one: one.root.calls + one.sub.calls,
    "prompt tokens": lambda one: one.root.prompt_tokens + one.sub.prompt_tokens,
    "completion tokens": lambda one: one.root.completion_tokens + one.sub.completion_tokens,
    "seconds": lambda one: one.timing.total,
    "US$": lambda one: one.cost,
}
"""What is estimated, of one rollout; None where it is unknown."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum over rollouts, those that are known included."""

    total: float
    low: float | None
    """Bounds of a 95 % prediction interval; None where too few tasks are known for one."""
    high: float | None

    def __add__(self, other: Amount) -> Amount:
        low = None if self.low is None or other.low is None else self.low + other.low
        high = None if self.high is None or other.high is None else self.high + other.high
        return Amount(self.total + other.total, low, high)

    def divided(self, by: float) -> Amount:
        """The same in larger units."""
        bounds = (None if bound is None else bound / by for bound in (self.low, self.high))
        return Amount(self.total / by, *bounds)


@dataclass(frozen=True, slots=True)
class ScaffoldEstimate:
    """What the rollouts of one scaffold take, all of them together."""

    scaffold: str
    rollouts: int
    known: int
    """Rollouts that are stored; without those that ended in errors."""
    failed: int
    """Stored rollouts that ended in errors."""
    amounts: dict[str, Amount | None]
    """By the names of `QUANTITIES`; None: unknown."""


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run on one environment takes."""

    scaffolds: list[ScaffoldEstimate]
    tasks: int
    unseen: dict[int, int]
    """Context lengths of which no rollout is known -> tasks, which are not in the amounts."""
    enough: int
    """The first so many tasks have all the context lengths."""

    def total(self, quantity: str) -> Amount | None:
        """Over all scaffolds; None where it is unknown in one."""
        found = [one.amounts[quantity] for one in self.scaffolds]
        known = [one for one in found if one is not None]
        return sum(known[1:], known[0]) if known and len(known) == len(found) else None


def estimate(
    lengths: Mapping[str, int], scaffolds: Iterable[str], repeats: int, stats: Mapping[Key, RolloutStats]
) -> RunEstimate:
    """What `repeats` rollouts of each task in each scaffold take, from those in `stats`. `lengths`: of all tasks
    (`length_of_tasks`)."""
    stored = [one for one in stats.values() if one.task_id in lengths]
    known = [one for one in stored if one.outcome is not Outcome.ERROR]
    seen = {lengths[one.task_id] for one in known}
    by_length: dict[int, int] = defaultdict(int)
    for length in lengths.values():
        by_length[length] += 1
    unseen = {length: count for length, count in by_length.items() if length not in seen} if known else {}
    found = []
    for scaffold in scaffolds:
        members = [one for one in known if one.scaffold == scaffold]
        amounts = {name: _amount(measure, members, lengths, repeats) for name, measure in QUANTITIES.items()}
        failed = sum(one.scaffold == scaffold for one in stored) - len(members)
        found.append(ScaffoldEstimate(scaffold, len(lengths) * repeats, len(members), failed, amounts))
    return RunEstimate(found, len(lengths), unseen, tasks_enough(lengths))


def length_of_tasks(tasks: Sequence[Task]) -> dict[str, int]:
    """Task id -> its context length in tokens, that of the shortest of the same group; 0 where it is unknown."""
    found: dict[str, int] = {}
    shortest = 0
    known = {task.id: context_length(task.info) or 0 for task in tasks}
    for task_id, length in sorted(known.items(), key=lambda pair: pair[1]):
        if length > SAME_LENGTH * shortest:
            shortest = length
        found[task_id] = shortest
    return {task.id: found[task.id] for task in tasks}


def tasks_enough(lengths: Mapping[str, int]) -> int:
    """How many of the first tasks have all the context lengths."""
    first: dict[int, int] = {}
    for place, length in enumerate(lengths.values(), 1):
        first.setdefault(length, place)
    return max(first.values(), default=0)


def _amount(
    measure: Callable[[RolloutStats], float | None],
    known: Sequence[RolloutStats],
    lengths: Mapping[str, int],
    repeats: int,
) -> Amount | None:
    """The amount of one quantity in one scaffold."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for one in known:
        value = measure(one)
        if value is None:
            return None
        by_task[one.task_id].append(value)
    if not by_task:
        return None
    groups: dict[int, list[float]] = defaultdict(list)
    for task_id, values in by_task.items():
        groups[lengths[task_id]].append(math.fsum(values) / len(values))
    means = {length: math.fsum(values) / len(values) for length, values in groups.items()}
    left: dict[int, list[int]] = defaultdict(list)
    for task_id, length in lengths.items():
        if length in means:
            left[length].append(max(0, repeats - len(by_task.get(task_id, ()))))
    spent = math.fsum(value for values in by_task.values() for value in values)
    total = spent + math.fsum(means[length] * sum(counts) for length, counts in left.items())
    degrees = sum(len(values) - 1 for values in groups.values())
    if not any(map(sum, left.values())):
        return Amount(total, total, total)
    if not degrees:
        return Amount(total, None, None)
    scatter = math.fsum((v / means[g] - 1) ** 2 for g, values in groups.items() if means[g] for v in values) / degrees
    variance = math.fsum(
        means[g] ** 2 * scatter * (sum(n * n for n in counts) + sum(counts) ** 2 / len(groups[g]))
        for g, counts in left.items()
    )
    width = student_quantile(degrees) * math.sqrt(variance)
    return Amount(total, max(spent, total - width), total + width)
