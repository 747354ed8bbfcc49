"""A rollout as other formats can hold it: in valid Unicode."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from rlm_env.repl.wire import sanitize

T = TypeVar("T")


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
