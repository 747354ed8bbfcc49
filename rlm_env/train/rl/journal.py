"""The write-ahead log of a run, `journal.jsonl`: which groups were drawn, dropped and trained.

A killed run goes on from it. The rollouts themselves are in rollouts.jsonl, the weights in `checkpoints/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlm_env.lines import parse_record
from rlm_env.runs.jsonl import NEVER, JsonLog, read_jsonl
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.sampler import TaskDraw, TaskPlace

JOURNAL = "journal.jsonl"


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
    """Step -> the groups that it trains."""

    @property
    def open(self) -> list[int]:
        """Groups that were drawn, and neither trained nor dropped."""
        used = {group for groups in self.batches.values() for group in groups} | self.dropped
        return [group for group in self.drawn if group not in used]

    def add(self, event: Mapping[str, Any]) -> None:
        """Takes in a line of the journal. Raises ValueError, KeyError or TypeError where it is none, and where it names
        a group that was not drawn."""
        match event["event"]:
            case "drawn":
                at = _whole(event["stage"]), _whole(event["index"])
                self.drawn[_whole(event["group"])] = TaskPlace(str(event["environment"]), *at, event.get("pool"))
            case "scored":
                self._known([event["group"]])
                self.rewards[event["group"]] = float(event["reward"])
            case "dropped":
                self.dropped |= self._known([event["group"]])
            case "batch":
                self._known(event["groups"])
                self.batches[_whole(event["step"])] = list(event["groups"])
            case other:
                raise ValueError(f"unknown event {other!r}")

    def _known(self, groups: Iterable[int]) -> set[int]:
        if unknown := [group for group in groups if group not in self.drawn]:
            raise ValueError(f"it names groups that were not drawn: {unknown}")
        return set(groups)


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
