"""What a run has drawn, thrown away and trained: `journal.jsonl`, from which a killed run goes on.

Covered: the events, writing them so that a crash costs none, reading them back. Not covered: the rollouts
themselves, which stand in rollouts.jsonl; weights (`checkpoint.py`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_env.runs.errors import RunStopped
from rlm_env.train.rl.sampler import TaskDraw

JOURNAL = "journal.jsonl"


@dataclass(slots=True)
class History:
    """The events of a run so far."""

    drawn: dict[int, dict[str, Any]] = field(default_factory=dict)
    """RolloutGroup -> environment, stage and index of its task, in the order of the draws."""
    dropped: set[int] = field(default_factory=set)
    """Groups that were thrown away."""
    batches: dict[int, list[int]] = field(default_factory=dict)
    """Step -> the groups that it trains."""

    @property
    def open(self) -> list[int]:
        """Groups that were drawn and neither trained nor thrown away."""
        used = {group for groups in self.batches.values() for group in groups} | self.dropped
        return [group for group in self.drawn if group not in used]


class Journal:
    """The journal of the run in `folder`, open for appending; one writer at a time (the run's folder is locked)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.history = read_journal(self.path)
        self._file = open(self.path, "a", encoding="ascii")  # noqa: SIM115 - closed by close()

    def drew(self, draw: TaskDraw) -> None:
        """A group of rollouts begins."""
        place = {"environment": draw.environment, "stage": draw.stage, "index": draw.index, "task_id": draw.task.id}
        self.history.drawn[draw.group] = place
        self._write({"event": "drew", "group": draw.group, **place})

    def dropped(self, group: int, reason: str) -> None:
        """A group is thrown away."""
        self.history.dropped.add(group)
        self._write({"event": "dropped", "group": group, "reason": reason})

    def batch(self, step: int, groups: list[int]) -> None:
        """Step `step` trains these groups. On the disk, not only in its cache, when this returns."""
        self.history.batches[step] = groups
        self._write({"event": "batch", "step": step, "groups": groups})
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunStopped("disk error", f"{self.path}: {error.strerror}", 1) from error


def read_journal(path: Path) -> History:
    """The history in a journal; an empty one where there is no file. A line that a crash cut off is removed."""
    history = History()
    if not path.exists():
        return history
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    for line in whole.splitlines():
        event = json.loads(line)
        kind = event.pop("event")
        if kind == "drew":
            history.drawn[event.pop("group")] = event
        elif kind == "dropped":
            history.dropped.add(event["group"])
        else:
            history.batches[event["step"]] = event["groups"]
    return history
