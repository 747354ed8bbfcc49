"""Checks of the options that environments take: a wrong one fails at once, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counts(option: str, values: int | Sequence[int]) -> list[int]:
    """One positive whole number, or some."""
    listed = [values] if isinstance(values, int) else list(values)
    if not listed or not all(isinstance(value, int) and value >= 1 for value in listed):
        raise ValueError(f"{option} must be one or more positive whole numbers, got {values!r}")
    return listed


def one_of(option: str, value: str, known: Iterable[str]) -> str:
    """The value, which must be a known one."""
    if value not in known:
        raise ValueError(f"{option}: {value!r} does not exist; there are {', '.join(known)}")
    return value


def at_least(option: str, value: int | None, least: int) -> int | None:
    """The value, None or a whole number from `least` on."""
    if value is not None and (not isinstance(value, int) or value < least):
        raise ValueError(f"{option} must be at least {least} or None, got {value!r}")
    return value
