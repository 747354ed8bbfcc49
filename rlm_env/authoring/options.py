"""Checks of the options that environments take: a wrong one fails at once, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OptionsT = TypeVar("OptionsT", bound="DataclassInstance")


def counts(option: str, values: int | Sequence[int]) -> list[int]:
    """One or more positive whole numbers, as a list."""
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
    """The value: None, or a whole number that is at least `least`."""
    if value is not None and not isinstance(value, int):
        raise ValueError(f"{option} must be one whole number or None, got {value!r}")
    if value is not None and value < least:
        raise ValueError(f"{option} must be at least {least} or None, got {value!r}")
    return value


def chosen(option: str, values: str | Sequence[str] | None, known: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """One or more known names, as a list; None chooses all."""
    names = [values] if isinstance(values, str) else list(known if values is None else values)
    if not names:
        raise ValueError(f"{option} must name at least one of {', '.join(known)}")
    return [one_of(option, name, known) for name in names]


def dataset_options(
    dataset: str, classes: Mapping[str, type[OptionsT]], options: Mapping[str, Any], common: Sequence[str]
) -> OptionsT:
    """The options of one data set of an environment, as an object of its class.

    `classes` maps a data set to the dataclass of its options; `options` are those that were given, None counting as
    not given; `common` are the names of the environment's other options, for the message. Raises ValueError for an
    unknown data set or an option that only other data sets have, TypeError for an option that none has.
    """
    names = {known: [field.name for field in fields(kind)] for known, kind in classes.items()}
    every = list(dict.fromkeys([*common, *(name for listed in names.values() for name in listed)]))
    if unknown := [name for name in options if name not in every]:
        raise TypeError(f"unknown option {', '.join(map(repr, unknown))}; there are {', '.join(every)}")
    one_of("dataset", dataset, classes)
    given = {name: value for name, value in options.items() if value is not None}
    if idle := sorted(given.keys() - set(names[dataset])):
        raise ValueError(f"dataset {dataset!r} has no option {', '.join(idle)}")
    return classes[dataset](**given)
