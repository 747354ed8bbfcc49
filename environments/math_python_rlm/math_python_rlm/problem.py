"""A problem: its words and its answer by a closed form, and how answers are written in LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from rlm_env.authoring.draw import Draw


class Surd(NamedTuple):
    """factor * sqrt(radicand), the radicand square-free."""

    factor: int
    radicand: int


Value = int | Fraction | Surd | frozenset[int]


@dataclass(frozen=True)
class Problem:
    """A question, and a function that computes its answer.

    The parameters are the only numbers in `question`, in the order in which an independent program needs them.
    """

    question: str
    solve: Callable[[], Value]


Family = Callable[[Draw], Problem]


def latex(value: Value) -> str:
    """The exact value: `12`, `-\\frac{1}{2}`, `3\\sqrt{5}`, `\\{1, 2\\}`."""
    if isinstance(value, Surd):
        if value.radicand == 1:
            return str(value.factor)
        return f"{'' if value.factor == 1 else value.factor}\\sqrt{{{value.radicand}}}"
    if isinstance(value, frozenset):
        return "\\{" + ", ".join(map(str, sorted(value))) + "\\}"
    if isinstance(value, Fraction) and value.denominator != 1:
        return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    return str(int(value))


def is_hard(value: Value) -> bool:
    """True if the value is beyond mental arithmetic and guessing."""
    if isinstance(value, Surd):
        return value.radicand > 100
    if isinstance(value, frozenset):
        return len(value) > 1
    if isinstance(value, Fraction) and value.denominator > 2:
        return value.denominator >= 1000
    return abs(value) >= 1000
