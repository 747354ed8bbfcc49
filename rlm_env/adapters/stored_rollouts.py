"""The rollouts of a run as every export takes them: each once, and in valid Unicode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rlm_env.lines import read_lines
from rlm_env.repl.wire import sanitize
from rlm_env.rollout import RecordError, Rollout, read_rollouts
from rlm_env.runs.folder import PLACE

T = TypeVar("T")


def stored_rollouts(path: Path) -> Iterator[Rollout]:
    """The rollouts in a file, in its order: of one that was stored twice (an error that was repeated), the last.

    Raises RecordError, naming file and line, for a line that holds no rollout, and OSError.
    """
    last = {place: number for number, place in enumerate(read_lines(path, _place, RecordError))}
    wanted = set(last.values())
    for number, rollout in enumerate(read_rollouts(path)):
        if number in wanted:
            yield rollout


def valid_unicode(value: T) -> T:
    """A copy with U+FFFD for lone surrogates, which a REPL can print and rollouts.jsonl keeps: no other format does."""
    return _valid(value)


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, list):
        return value if value and isinstance(value[0], int | float) else [_valid(item) for item in value]
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        stored = [field.name for field in fields(value) if field.compare]  # not the context, which is no part of it
        return replace(value, **{name: _valid(getattr(value, name)) for name in stored})
    return value


def _place(line: str) -> Any:
    """What tells the rollout in a line from others."""
    record = json.loads(line)
    return record.get("id") or (record["scaffold"], record["task_id"], *(record["info"].get(key) for key in PLACE))
