"""The facts of a repository that questions are made from, and the method resolution order (C3).

A function or class is named by its full dotted name. Facts come from the generator's own model of a synthetic
repository (`synth.py`), or from the source of an installed package (`installed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call."""

    function: str
    argument: str
    """As it is passed: `limit=75`."""
    raised: str
    """The class of the exception."""
    others: list[str]
    """Other exceptions that the functions on the way name."""


@dataclass(frozen=True)
class Facts:
    """Facts of one repository. `executed` tells which calls count: if True, those that happen when the caller runs
    without arguments; if False, those written in the caller's code."""

    executed: bool
    order: Mapping[str, Sequence[str]]
    """Class -> its method resolution order, itself first; classes of the repository by dotted name, others by their
    own (`object`)."""
    bases: Mapping[str, Sequence[str]]
    own: Mapping[str, frozenset[str]]
    """Class -> every name that its body binds."""
    methods: Mapping[str, Sequence[str]]
    """Class -> the methods of `own` that are asked about."""
    defaults: Mapping[str, Mapping[str, str]]
    """Function -> parameter -> the default value, as `repr` writes it."""
    literals: Sequence[str]
    """Values that the code holds besides, as `repr` writes them."""
    levels: Callable[[str, int], list[frozenset[str]]]
    """(function, k) -> the functions that chains of exactly 0, 1, ... k calls reach from it."""
    mentions: Mapping[str, Set[str]]
    """Function -> the functions that its code names, called or not."""
    exceptions: Sequence[str]
    outcomes: Sequence[Outcome]
    raises: Mapping[str, frozenset[str]]
    """Function -> the exceptions of the repository that its code raises (only where calls are not executed)."""


def linearize(name: T, bases: Sequence[T], mro: Mapping[T, Sequence[T]]) -> list[T] | None:
    """The method resolution order of a class whose bases have theirs in `mro`; None if no order is consistent.

    C3: repeatedly takes the first head that is in no other sequence's tail (Barrett and others, OOPSLA 1996)."""
    sequences = [list(mro[base]) for base in bases] + [list(bases)]
    order = [name]
    while any(sequences):
        sequences = [s for s in sequences if s]
        head = next((s[0] for s in sequences if not any(s[0] in other[1:] for other in sequences)), None)
        if head is None:
            return None
        order.append(head)
        sequences = [s[1:] if s[0] == head else s for s in sequences]
    return order


def short(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
