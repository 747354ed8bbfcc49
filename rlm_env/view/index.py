"""The index of one growing file of rollouts: where each line begins, and the row of the table for it.

A file is read once, line by line, whenever somebody asks for what is new, for as long as they want to wait. Whole
records are read again when they are opened. A file that was replaced (scored again) is read anew.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlm_env.evals.outline import outline
from rlm_env.evals.programs import RolloutCode, WrittenProgram, written_code
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.lines import parse_record
from rlm_env.readable.words import start_of
from rlm_env.repl.wire import sanitize
from rlm_env.rollout import RecordError, Rollout, SubCall, Turn

_KEPT = 4
"""Whole records that are kept in memory."""


class RolloutIndex:
    """One file of rollouts, as far as it was read. Safe to use from several threads."""

    def __init__(
        self, path: Path, stats_of: Callable[[Rollout], RolloutStats], key_of: Callable[[Rollout], str]
    ) -> None:
        self.path = path
        self._stats_of, self._key_of = stats_of, key_of
        self._lock = threading.Lock()
        self._records: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._file_id = 0
        self.generation = 0
        """Grows when the file was replaced: line numbers mean something else then."""
        self._clear()

    def _clear(self) -> None:
        self._position = 0
        self._starts: list[int] = []
        self._records.clear()
        self.size = 0
        """Bytes of the file when it was last looked at."""
        self.rows: list[dict[str, Any]] = []
        """One per rollout, in the order of the file."""
        self.stats: list[RolloutStats] = []
        """One per row, without what its code is: see `program`."""
        self._programs: list[RolloutCode | WrittenProgram | None] = []
        self.problems: list[str] = []
        """Lines that hold no rollout, one sentence each."""
        self.lines: dict[str, int] = {}
        """Key -> number of its last row. A rollout that was repeated is in the file twice."""

    @property
    def complete(self) -> bool:
        """Everything was read that is in the file in whole lines."""
        return self._position >= self.size

    @property
    def share(self) -> float:
        """How much of the file was read, from 0 to 1."""
        return 1.0 if self.complete else self._position / self.size

    def refresh(self, seconds: float | None = None) -> None:
        """Reads what is new, for about `seconds` at most. Raises OSError where the file cannot be read."""
        with self._lock:
            try:
                facts = os.stat(self.path)
            except FileNotFoundError:
                self._clear()
                return
            if facts.st_ino != self._file_id or facts.st_size < self._position:
                self.generation += self._file_id != 0
                self._file_id = facts.st_ino
                self._clear()
            self.size = facts.st_size
            if not self.complete:
                self._read(None if seconds is None else time.monotonic() + seconds)

    def _read(self, until: float | None) -> None:
        with open(self.path, "rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    self.size = self._position  # it is being written: looked at again when the file has grown
                    return
                start, self._position = self._position, self._position + len(line)
                if line.strip():
                    self._add(start, line)
                if until is not None and time.monotonic() > until:
                    return

    def _add(self, start: int, line: bytes) -> None:
        try:
            rollout = outline(line)
            stats, code = self._stats_of(rollout), written_code(rollout)
        except (RecordError, ValueError, KeyError, TypeError) as error:
            self.problems.append(f"{self.path.name}, byte {start:,}: {error}")
            return
        key = sanitize(self._key_of(rollout))  # a part of addresses
        self._starts.append(start)
        self.stats.append(stats)
        self._programs.append(code)
        self.rows.append({"key": key, **row_of(rollout, stats)})
        self.lines[key] = len(self.rows) - 1  # last: others may look it up meanwhile

    def program(self, number: int) -> WrittenProgram | None:
        """What the code of a row is, read when it is asked for first; None where there was no REPL."""
        found = self._programs[number]
        if isinstance(found, RolloutCode):
            found = self._programs[number] = found.read()
        return found

    def record(self, number: int) -> dict[str, Any]:
        """The whole stored record of a row, with every field that it may have. Raises OSError."""
        with self._lock:
            if number not in self._records:
                with open(self.path, "rb") as file:
                    file.seek(self._starts[number])
                    line = file.readline()
                self._records[number] = complete_record(parse_record(line))
                while len(self._records) > _KEPT:
                    self._records.popitem(last=False)
            self._records.move_to_end(number)
            return self._records[number]

    def line(self, number: int) -> bytes:
        """The line of a row as it lies in the file."""
        with open(self.path, "rb") as file:
            file.seek(self._starts[number])
            return file.readline()


def complete_record(record: dict[str, Any]) -> dict[str, Any]:
    """A stored record with defaults for the fields that older ones do not have."""
    whole = asdict(Rollout()) | record
    turn, call = asdict(Turn()), asdict(SubCall(id=0, root_turn=0, batch=0, messages=[]))
    whole["turns"] = [turn | one for one in whole["turns"]]
    whole["sub_calls"] = [call | one for one in whole["sub_calls"]]
    whole["timing"] = asdict(Rollout())["timing"] | whole["timing"]
    return whole


TEXT_CHARS = 160
"""Characters of question, answer, right answer and error in a row."""


def row_of(rollout: Rollout, stats: RolloutStats) -> dict[str, Any]:
    """What the table shows of a rollout. Empty values are left out."""
    row: dict[str, Any] = {
        "id": rollout.id,
        "scaffold": stats.scaffold,
        "environment": rollout.environment,
        "task": stats.task_id,
        "repeat": stats.repeat,
        "outcome": stats.outcome.value,
        "stop": stats.stop_reason.value,
        "score": stats.score,
        "question": start_of(rollout.question, TEXT_CHARS),
        "answer": start_of(stats.answer, TEXT_CHARS),
        "gold": start_of(shown_gold(rollout.gold), TEXT_CHARS),
        "error": start_of(stats.error or "", TEXT_CHARS),
        "turns": stats.turns,
        "sub_calls": stats.sub_calls,
        "failed": stats.failed_sub_calls,
        "tokens": stats.root.tokens + stats.sub.tokens,
        "seconds": round(stats.timing.total, 3),
        "cost": stats.cost,
        "length": stats.length,
    }
    if rollout.group is not None:
        row |= {"label": rollout.group.label, "group": rollout.group.group, "member": rollout.group.member}
        row |= {"step": rollout.group.step, "version": rollout.group.policy_version}
    return {name: value for name, value in row.items() if value not in (None, "")}


def shown_gold(gold: Any) -> str:
    """A right answer as text; empty where none was recorded."""
    if gold is None or isinstance(gold, str):
        return gold or ""
    return json.dumps(gold, ensure_ascii=False)
