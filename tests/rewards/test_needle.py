"""S-NIAH scores by example, and total."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import needle
from tests.rewards.hostile import LONG, SIZES, anything, seconds

# output, official, strict; the gold is 4401937
TABLE = [
    ("Answer: 4401937", 1.0, 1.0),
    ("4401937", 1.0, 1.0),
    ("**Answer:** 4,401,937.", 0.0, 1.0),
    ("Let me see.\nAnswer: \\boxed{4401937}", 1.0, 1.0),
    ("Answer: 1\nAnswer: 4401937", 1.0, 1.0),
    ("Answer: 4401937\nAnswer: 1", 1.0, 0.0),
    ("It is 4401937", 1.0, 0.0),
    ("Answer: 4401937 or 4401938", 1.0, 0.0),
    ("Answer: 44019370", 1.0, 0.0),
    ("Answer: 4401938", 0.0, 0.0),
    ("Answer:", 0.0, 0.0),
    ("", 0.0, 0.0),
    (None, 0.0, 0.0),
]


@pytest.mark.parametrize(("output", "official", "strict"), TABLE)
def test_modes_by_example(output: object, official: float, strict: float):
    assert needle.score(output, "4401937") == official
    assert needle.score(output, "4401937", "strict") == strict


def test_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="mode must be official or strict, got 'kind'"):
        needle.score("1", "1", "kind")


near = st.lists(st.sampled_from(["Answer:", " ", "1", "12", ",", "\n", "*", "\\boxed{", "}", "."])).map("".join)


@settings(max_examples=300)
@given(anything | near, anything | near, st.sampled_from(needle.MODES))
def test_score_is_total(output: object, gold: object, mode: str):
    assert needle.score(output, gold, mode) in (0.0, 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LONG)
def test_megabytes_take_linear_time(name: str, size: int):
    text, started = LONG[name](size), time.process_time()
    for mode in needle.MODES:
        assert needle.score(text, "4401937", mode) == 0.0
    assert time.process_time() - started < seconds(size)
