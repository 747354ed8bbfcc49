"""Rejection sampling: reads files of rollouts, applies the filters of `KeepConfig`, and makes samples.

It also counts why rollouts were dropped and sets tasks aside for the held-out loss. Not covered: token ids for rollouts
that have none (`text_turns.py`), training (`trainer.py`).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.rollout import RecordError, Rollout
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import ROLLOUTS, latest_rollouts
from rlm_env.train.learner.samples import Sample, rollout_samples
from rlm_env.train.sft.config import KeepConfig, SFTConfig
from rlm_env.train.sft.text_turns import CannotEncode, in_students_tokens


@dataclass(slots=True)
class Chosen:
    """Training samples, held-out samples, and counts of what was read, kept and dropped."""

    samples: list[Sample] = field(default_factory=list)
    held_out: list[Sample] = field(default_factory=list)
    read: int = 0
    kept: int = 0
    encoded: int = 0
    """Kept rollouts of which some text had to be encoded, because its ids were not the student's."""
    tasks: int = 0
    held_out_tasks: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of dropped rollouts by reason."""

    @property
    def reasons(self) -> str:
        """Why rollouts were dropped, the most frequent reason first."""
        return "; ".join(f"{reason}: {count:,}" for reason, count in self.dropped.most_common())

    @property
    def nothing_left(self) -> str:
        """What to say where no sample is left."""
        why = f" ({self.reasons})" if self.dropped else ""
        return f"none of the {self.read:,} rollouts is left to train{why}"


def choose(config: SFTConfig, tokens: ChatTokens) -> Chosen:
    """Reads and filters rollouts and makes samples, in the order of the files.

    Raises ConfigError if a file is missing or damaged.
    """
    chosen = Chosen()
    candidates = []
    for rollout in _read_all(config.rollouts):
        chosen.read += 1
        if (reason := _refused(rollout, config.keep)) is not None:
            chosen.dropped[reason] += 1
        else:
            candidates.append(rollout)
    candidates = _distinct(candidates, config.keep, chosen.dropped)
    candidates = _best(candidates, config.keep, chosen.dropped)
    held_out = _held_out_tasks({_task(rollout) for rollout in candidates}, config)
    tasks = set()
    for rollout in candidates:
        made = _samples(rollout, config, tokens, chosen)
        if made:
            tasks.add(_task(rollout))
            chosen.kept += 1
            (chosen.held_out if _task(rollout) in held_out else chosen.samples).extend(made)
    chosen.tasks = len(tasks)
    chosen.held_out_tasks = len(tasks & held_out)
    return chosen


def _read_all(paths: Iterable[str]) -> Iterator[Rollout]:
    """The rollouts of all files. If a file has two with one id, the later one counts."""
    for given in paths:
        path = Path(given).expanduser()
        path = path / ROLLOUTS if path.is_dir() else path
        try:
            yield from latest_rollouts(path)
        except OSError as error:
            raise ConfigError(f"rollouts: {path} cannot be read: {error.strerror}") from error
        except RecordError as error:
            raise ConfigError(f"rollouts: {error}") from error


def _task(rollout: Rollout) -> tuple[str, str]:
    return rollout.environment, rollout.task_id


def _refused(rollout: Rollout, keep: KeepConfig) -> str | None:
    """Why a rollout is dropped, judged by itself and without its tokens; None if it is not."""
    turns = len(rollout.turns)
    if keep.environments is not None and rollout.environment not in keep.environments:
        return f"environment {rollout.environment}"
    if keep.scaffolds is not None and rollout.scaffold not in keep.scaffolds:
        return f"scaffold {rollout.scaffold}"
    if rollout.score is None:
        return "no score"
    if rollout.score.value < keep.min_score:
        return f"score below {keep.min_score:g}"
    if rollout.stop_reason not in keep.stop_reasons:
        return f"stop reason {rollout.stop_reason}"
    if turns < keep.min_turns:
        return f"fewer than {keep.min_turns} turns"
    if keep.max_turns is not None and turns > keep.max_turns:
        return f"more than {keep.max_turns} turns"
    return None


def _distinct(rollouts: list[Rollout], keep: KeepConfig, dropped: Counter[str]) -> list[Rollout]:
    """One of the rollouts of a task whose root replies are the same."""
    if not keep.dedupe:
        return rollouts
    said = {}
    for rollout in rollouts:
        replies = tuple((turn.text, str(turn.tool_calls and turn.code)) for turn in rollout.turns)
        said.setdefault((_task(rollout), replies), rollout)
    if len(said) < len(rollouts):
        dropped["the same root replies as in another one"] += len(rollouts) - len(said)
    return list(said.values())


def _best(rollouts: list[Rollout], keep: KeepConfig, dropped: Counter[str]) -> list[Rollout]:
    """The best rollouts of each task."""
    if keep.best_of is None:
        return rollouts
    by_task: dict[tuple[str, str], list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        by_task[_task(rollout)].append(rollout)
    best = {id(r) for group in by_task.values() for r in sorted(group, key=_rank)[: keep.best_of]}
    if len(best) < len(rollouts):
        dropped[f"not among the best {keep.best_of} of its task"] += len(rollouts) - len(best)
    return [rollout for rollout in rollouts if id(rollout) in best]


def _rank(rollout: Rollout) -> tuple[float, int]:
    """The order within a task: score, then fewest sampled tokens."""
    sampled = rollout.root_usage.completion_tokens + rollout.sub_usage.completion_tokens
    return -(rollout.score.value if rollout.score is not None else 0.0), sampled


def _held_out_tasks(tasks: set[tuple[str, str]], config: SFTConfig) -> set[tuple[str, str]]:
    """The tasks whose rollouts are all held out; at least one, if there are two or more tasks."""
    order = sorted(tasks)
    random.Random(f"{config.seed}/held-out").shuffle(order)
    count = round(config.held_out * len(order))
    if config.held_out and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
    return set(order[:count])


def _samples(rollout: Rollout, config: SFTConfig, tokens: ChatTokens, chosen: Chosen) -> list[Sample]:
    """The samples of a rollout; none if it is dropped, which is counted."""
    try:
        rollout, encoded = in_students_tokens(rollout, tokens)
    except CannotEncode as error:
        chosen.dropped[str(error)] += 1
        return []
    samples = [
        # Cross-entropy is the policy gradient with an advantage of 1.
        replace(sample, advantage=1.0)
        for sample in rollout_samples(rollout, config.samples, temperature=1.0)
    ]
    limit = min(config.keep.max_tokens or config.trainer.pack_tokens, config.trainer.pack_tokens)
    if not samples:
        chosen.dropped["no tokens to train"] += 1
    elif max(map(len, samples)) > limit:
        chosen.dropped[f"a sample of more than {limit:,} tokens"] += 1
        return []
    chosen.encoded += encoded and bool(samples)
    return samples
