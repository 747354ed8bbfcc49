"""A dataclass as a dict of what it holds, like `dataclasses.asdict`, but fast on long lists of numbers.

`asdict` copies each number on its own, which takes most of the time of storing a rollout: its token ids and logprobs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

_PLAIN = frozenset({int, float, str, bool, type(None)})
"""Types whose values nothing can change, so that a list of them is copied at once."""


def as_dict(record: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass by name, without those in `leave_out`.

    Dataclasses at any depth are dicts too. Dicts, lists and tuples are copied, so that the result can be changed;
    anything else is shared with `record`.
    """
    return {name: _copied(getattr(record, name)) for name in _names(type(record)) if name not in leave_out}


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, list):
        return value[:] if _PLAIN.issuperset(map(type, value)) else [_copied(item) for item in value]
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_copied(item) for item in value)
    return as_dict(value) if is_dataclass(kind) else value


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
