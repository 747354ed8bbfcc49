"""The write-ahead log of a run, `journal.jsonl`: which groups were drawn, dropped and trained.

A killed run goes on from it. The rollouts themselves are in rollouts.jsonl, the weights in `checkpoints/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlm_env.lines import parse_record
from rlm_env.runs.jsonl import NEVER, JsonLog, read_jsonl
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.sampler import TaskDraw, TaskPlace
from rlm_env.train.run_files import JOURNAL


@dataclass(slots=True)
class History:
    """The events of a run so far."""

    drawn: dict[int, TaskPlace] = field(default_factory=dict)
    """Group number -> its task, in the order of the draws."""
    dropped: set[int] = field(default_factory=set)
    """Groups that were dropped."""
    rewards: dict[int, float] = field(default_factory=dict)
    """Group -> its mean reward; of a run with `groups.pools` alone."""
    batches: dict[int, list[int]] = field(default_factory=dict)
    """Step -> the groups that it trains; steps 1, 2, 3, ..."""
    trained: set[int] = field(default_factory=set)
    """All groups of `batches`."""

    @property
    def open(self) -> list[int]:
        """Groups that were drawn, and neither trained nor dropped."""
        return [group for group in self.drawn if group not in self.trained and group not in self.dropped]

    def add(self, event: Mapping[str, Any]) -> None:
        """Takes in a line of the journal. Raises ValueError, KeyError or TypeError where it is none, and where it does
        not follow from those before: groups and steps are counted without a gap, and a group is trained or dropped
        once."""
        match event["event"]:
            case "drawn":
                at = _whole(event["stage"]), _whole(event["index"])
                _next("group", event["group"], len(self.drawn))
                self.drawn[event["group"]] = TaskPlace(str(event["environment"]), *at, event.get("pool"))
            case "scored":
                self._known([event["group"]])
                self.rewards[event["group"]] = float(event["reward"])
            case "dropped":
                self.dropped |= self._unused([event["group"]])
            case "batch":
                _next("step", event["step"], len(self.batches) + 1)
                self.trained |= self._unused(event["groups"])
                self.batches[event["step"]] = list(event["groups"])
            case other:
                raise ValueError(f"unknown event {other!r}")

    def _known(self, groups: Iterable[int]) -> set[int]:
        if unknown := [group for group in groups if group not in self.drawn]:
            raise ValueError(f"it names groups that were not drawn: {unknown}")
        return set(groups)

    def _unused(self, groups: Sequence[int]) -> set[int]:
        """The groups of a line that trains or drops them."""
        found = self._known(groups)
        if used := found & (self.trained | self.dropped):
            raise ValueError(f"it names groups that were trained or dropped before: {sorted(used)}")
        if not found or len(found) < len(groups):
            raise ValueError(f"its groups are {list(groups)}: at least one, and each once, was expected")
        return found


def _next(what: str, number: Any, expected: int) -> None:
    """Raises ValueError where a count does not go on with `expected`: a line before it is lost."""
    if _whole(number) != expected:
        raise ValueError(f"{what} {number} where {what} {expected} was expected")


def _whole(value: Any) -> int:
    """A number of the journal. Raises ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


class Journal:
    """The journal of the run in `folder`, open for appending; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where a line is damaged or another process is writing."""
        path = folder / JOURNAL
        self._log = JsonLog(path, fsync_seconds=NEVER)
        self.history = read_journal(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def drawn(self, draw: TaskDraw) -> None:
        """A task was drawn and its group begins."""
        place = {"environment": draw.environment, "stage": draw.stage, "index": draw.index}
        pool = {} if draw.pool is None else {"pool": draw.pool}
        self._append({"event": "drawn", "group": draw.group, **place, "task_id": draw.task.id, **pool})

    def scored(self, draw: TaskDraw, reward: float) -> None:
        """A group has ended with this mean reward. Written where there are pools, which it counts for."""
        if draw.pool is not None:
            self._append({"event": "scored", "group": draw.group, "reward": reward})

    def dropped(self, group: int, reason: DropReason) -> None:
        """A group is dropped."""
        self._append({"event": "dropped", "group": group, "reason": reason})

    def batch(self, step: int, groups: list[int]) -> None:
        """Step `step` trains these groups. When this returns, the line is on the disk and not only in its cache."""
        self._append({"event": "batch", "step": step, "groups": groups})
        self._log.sync()

    def _append(self, event: dict[str, Any]) -> None:
        self.history.add(event)
        self._log.append(event)


def read_journal(path: Path) -> History:
    """The history in a journal; an empty one where there is no file. Raises ConfigError where a line is damaged."""
    history = History()
    for _ in read_jsonl(path, lambda line: history.add(parse_record(line))):
        pass
    return history
