"""What a killed run has left to do, from its journal and rollouts.jsonl."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from statistics import fmean

from rlm_env.rollout import Rollout
from rlm_env.runs.folder import RunFolder
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.groups import Batch, RolloutGroup, member_of, reward_of
from rlm_env.train.rl.journal import History
from rlm_env.train.rl.sampler import TaskDraw, TaskSampler


@dataclass(slots=True)
class UnfinishedWork:
    """Batches and groups that were begun before the run was killed."""

    batches: dict[int, Batch] = field(default_factory=dict)
    """Step -> a batch that was handed out, and is trained again since the weights have not seen it."""
    draws: deque[TaskDraw] = field(default_factory=deque)
    """Groups that were neither handed out nor dropped, in order."""
    rollouts: dict[int, dict[int, Rollout]] = field(default_factory=dict)
    """Group -> member -> a scored rollout of these groups."""


def load_unfinished(
    config: TrainConfig, folder: RunFolder, history: History, sampler: TaskSampler, trained: int
) -> UnfinishedWork:
    """Reads it, and brings the sampler to where it was. `trained`: steps that the weights have seen."""
    later = {step: numbers for step, numbers in history.batches.items() if step > trained}
    unfinished = {number for numbers in later.values() for number in numbers} | set(history.open)
    stored: defaultdict[int, dict[int, Rollout]] = defaultdict(dict)
    rewards: defaultdict[int, list[float]] = defaultdict(list)
    for rollout in folder.rollouts():
        place = member_of(rollout)
        if place.group is None:
            continue
        if place.group in unfinished and rollout.score is not None:
            stored[place.group][place.member] = rollout
        if (reward := reward_of(rollout, config.groups.unfinished)) is not None:
            rewards[place.group].append(reward)
    work = UnfinishedWork()
    for step, numbers in sorted(later.items()):
        groups = [
            RolloutGroup(number, history.drawn[number].environment, config, _in_order(stored.pop(number)))
            for number in numbers
        ]
        work.batches[step] = Batch(step, groups)
    still_open = set(history.open)
    for number, place in history.drawn.items():
        draw = sampler.repeat(number, place.environment, place.stage, place.index)
        if number in still_open:
            work.draws.append(draw)
        elif number in rewards:
            sampler.observe(draw, fmean(rewards[number]))
    work.rollouts = dict(stored)
    return work


def _in_order(members: dict[int, Rollout]) -> list[Rollout]:
    return [rollout for _, rollout in sorted(members.items())]
