"""Recorded cases of the original scorers, and inputs that every scorer must survive.

These are values of any type, any Unicode, and megabytes of text of the kind that slows parsers down.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

ORACLES = Path(__file__).parents[1] / "oracles"


def cases(name: str, key: str = "cases") -> list[dict]:
    """The recorded cases of one file of `tests/oracles`, at least one."""
    found = json.loads((ORACLES / name).read_text("utf-8"))[key]
    assert found
    return found


surrogates = st.text(st.characters(codec=None, categories=["Cs", "Lu", "Mn", "Cc"]), max_size=8)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(),
    st.text(),
    surrogates,
    st.lists(st.one_of(st.none(), st.text(), st.integers()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.none() | st.text(), max_size=3),
)

SIZES = [1_000_000, pytest.param(10_000_000, marks=pytest.mark.slow)]
"""Characters of a long text. Quadratic time would be minutes with the first, hours with the second."""


def seconds(size: int) -> float:
    """A guard against quadratic time; not a measure of speed."""
    return 60.0 * size / 10_000_000


def repeated(unit: str) -> Callable[[int], str]:
    """A text of a given size: `unit`, again and again."""
    return lambda size: unit * (size // len(unit))


LONG: dict[str, Callable[[int], str]] = {
    "letters": repeated("a"),
    "blanks": repeated(" "),
    "stars": repeated("*"),
    "digits": repeated("7"),
    "open boxes": repeated("\\boxed{"),
    "nested boxes": lambda size: "\\boxed{" * (size // 14) + "}" * (size // 14),
    "braces": lambda size: "\\boxed" + "{" * (size // 2) + "}" * (size // 2),
    "answers": repeated("The correct answer is "),
    "spaced answers": repeated("answer is            "),
    "correct and blanks": lambda size: "correct" + " " * size,
    "corrects": repeated("**correct:** "),
    "extracted": lambda size: "Extracted final answer " + repeated(" \n")(size),
    "open tags": repeated("<answer>"),
    "close tags": repeated("</answer>"),
    "thoughts": repeated("</think>"),
    "combining": repeated("e\u0301\u200d"),
}
"""Long texts by name: a function of their size."""
