"""What a killed run has left to do, from its journal and rollouts.jsonl."""

from __future__ import annotations

import warnings
from collections import defaultdict, deque
from dataclasses import dataclass, field

from rlm_env.rollout import Rollout, StopReason
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import ROLLOUTS, RunFolder
from rlm_env.train.learner.samples import rollout_samples
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.groups import Batch, RolloutGroup, member_of, rollout_id
from rlm_env.train.rl.journal import History
from rlm_env.train.rl.sampler import TaskDraw, TaskSampler
from rlm_env.train.run_files import JOURNAL


@dataclass(slots=True)
class UnfinishedWork:
    """Batches and groups that were begun before the run was killed."""

    batches: dict[int, Batch] = field(default_factory=dict)
    """Step -> a batch that was handed out, and is trained again since the weights have not seen it."""
    draws: deque[TaskDraw] = field(default_factory=deque)
    """Groups that were neither handed out nor dropped, in order."""
    rollouts: dict[int, dict[int, Rollout]] = field(default_factory=dict)
    """Group -> member -> a rollout of these groups, scored, or cut short while it was."""


def load_unfinished(
    config: TrainConfig, folder: RunFolder, history: History, sampler: TaskSampler, trained: int
) -> UnfinishedWork:
    """Reads it, and brings the sampler to where it was. `trained`: steps that the weights have seen.

    Of groups that are trained or dropped, neither the task nor a rollout is needed again: no such task is made, and of
    no such line of rollouts.jsonl more is read than the id. A rollout that cannot be trained, as earlier versions
    stored where an engine had answered nonsense, is left out with a warning. Raises ConfigError where rollouts or
    steps are missing, and RecordError for damaged ones.
    """
    if trained > len(history.batches):
        raise ConfigError(
            f"{folder.path / JOURNAL} has {len(history.batches)} steps, and the weights have seen {trained}: the run "
            "cannot go on as it was; choose another --out"
        )
    later = {step: numbers for step, numbers in history.batches.items() if step > trained}
    still_open = set(history.open)
    unfinished = {number for numbers in later.values() for number in numbers} | still_open
    stored: defaultdict[int, dict[int, Rollout]] = defaultdict(dict)
    ids = {rollout_id(number, member) for number in unfinished for member in range(config.groups.size)}
    for rollout in folder.rollouts(ids) if ids else ():
        place = member_of(rollout)
        if place.group in unfinished and _has_ended(rollout) and _can_be_trained(rollout, config, folder):
            stored[place.group][place.member] = rollout
    work = UnfinishedWork()
    for step, numbers in sorted(later.items()):
        if lost := [number for number in numbers if number not in stored]:
            raise ConfigError(
                f"{folder.path / ROLLOUTS} has lost the rollouts of group {lost[0]}, which step {step} trained: the "
                "run cannot go on as it was; choose another --out"
            )
        groups = [
            RolloutGroup(number, history.drawn[number].environment, config, _in_order(stored.pop(number)))
            for number in numbers
        ]
        work.batches[step] = Batch(step, groups)
    for number, place in history.drawn.items():
        if number in still_open:
            work.draws.append(sampler.repeat(number, place))
        else:
            sampler.skip(number, place)
            if number in history.rewards:
                sampler.observe(place, history.rewards[number])
    work.rollouts = dict(stored)
    return work


def _has_ended(rollout: Rollout) -> bool:
    """Whether it has a score, or lacks nothing else."""
    failed = rollout.error is not None or rollout.stop_reason in (StopReason.ERROR, StopReason.CANCELLED)
    return rollout.score is not None or not failed


def _can_be_trained(rollout: Rollout, config: TrainConfig, folder: RunFolder) -> bool:
    """Whether its token ids and log-probabilities are some."""
    try:
        rollout_samples(rollout, config.samples)
    except ValueError as error:
        warnings.warn(f"{folder.path / ROLLOUTS}: {error}. This rollout is left out", stacklevel=3)
        return False
    return True


def _in_order(members: dict[int, Rollout]) -> list[Rollout]:
    """Those of a group that was closed: with what had a score by then."""
    return [rollout for _, rollout in sorted(members.items()) if rollout.score is not None]
