"""Recorded cases of the original scorers, and inputs that every scorer must survive.

These are values of any type, any Unicode, and ten megabytes of text of the kind that slows parsers down.
"""

from __future__ import annotations

import json
from pathlib import Path

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

MEGABYTES = 10_000_000
LONG = {
    "letters": "a" * MEGABYTES,
    "blanks": " " * MEGABYTES,
    "stars": "*" * MEGABYTES,
    "digits": "7" * MEGABYTES,
    "open boxes": "\\boxed{" * (MEGABYTES // 7),
    "nested boxes": "\\boxed{" * (MEGABYTES // 14) + "}" * (MEGABYTES // 14),
    "braces": "\\boxed" + "{" * (MEGABYTES // 2) + "}" * (MEGABYTES // 2),
    "answers": "The correct answer is " * (MEGABYTES // 22),
    "spaced answers": "answer is            " * (MEGABYTES // 20),
    "correct and blanks": "correct" + " " * MEGABYTES,
    "corrects": "**correct:** " * (MEGABYTES // 13),
    "extracted": "Extracted final answer " + " \n" * (MEGABYTES // 2),
    "open tags": "<answer>" * (MEGABYTES // 8),
    "close tags": "</answer>" * (MEGABYTES // 9),
    "thoughts": "</think>" * (MEGABYTES // 8),
    "combining": "e\u0301\u200d" * (MEGABYTES // 3),
}
