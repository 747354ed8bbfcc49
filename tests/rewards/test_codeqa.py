"""CodeQA: the official extraction as recorded, the strict one by example, both total."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import codeqa
from tests.rewards.hostile import LONG, SIZES, anything, cases, seconds


@pytest.mark.parametrize("case", cases("longbench_v2.json"), ids=lambda case: str(case["id"]))
def test_official_extracts_what_was_recorded(case: dict):
    assert codeqa.extract_choice(case["response"]) == case["extracted"]
    assert codeqa.extract_choice(case["response"].strip()) == case["extracted"]


# response, official, strict
TABLE = [
    ("The correct answer is (A)", "A", "A"),
    ("The correct answer is **D**.", "D", "D"),
    ("The correct answer is: (B)", None, "B"),
    ("the correct answer is (b)", None, None),
    ("The correct answer is Alpha", "A", None),
    ("The correct answer is (A) or (B)", "A", None),
    ("The correct answer is A and C", "A", None),
    ("The correct answer is (A). On reflection, the correct answer is (C)", "A", "C"),
    ("The correct answer is not (A)", None, None),
    ("Final answer: **option B**", None, "B"),
    ("It is \\boxed{\\text{(C)}}", None, "C"),
    (" (B).\n", None, "B"),
    ("B, I think", None, None),
    ("The correct answer is (E)", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("response", "official", "strict"), TABLE)
def test_modes_by_example(response: str, official: str | None, strict: str | None):
    assert codeqa.extract_choice(response) == official
    assert codeqa.extract_choice(response, "strict") == strict
    for letter in "ABCD":
        assert codeqa.score(response, letter) == float(letter == official)
        assert codeqa.score(response, letter, "strict") == float(letter == strict)


def test_choices_may_be_digits_as_in_the_rlm_paper():
    assert codeqa.extract_choice("The correct answer is (2)", choices="0123") == "2"
    assert codeqa.score("The correct answer is 2", 2, choices="0123") == 1.0
    assert codeqa.score("2", "2", "strict", choices="0123") == 1.0
    assert codeqa.score("The answer is 23", "2", "strict", choices="0123") == 0.0
    assert codeqa.score("The correct answer is (4)", 0, choices="0123") == 0.0


def test_unknown_modes_and_choices_are_refused_by_name():
    with pytest.raises(ValueError, match="mode must be official or strict, got 'kind'"):
        codeqa.extract_choice("x", "kind")
    with pytest.raises(ValueError, match="choices must be ASCII letters or digits, got 'A-D'"):
        codeqa.extract_choice("x", choices="A-D")


near_answers = st.lists(
    st.sampled_from(["The correct answer is ", "answer", ":", "(", "A", "B)", " or ", "*", "\\boxed{", "}", "\n", "Z"])
).map("".join)


@settings(max_examples=300)
@given(anything | near_answers, anything | st.sampled_from("ABCD"), st.sampled_from(codeqa.MODES))
def test_score_is_total(response: object, gold: object, mode: str):
    assert codeqa.extract_choice(response, mode) in (None, *"ABCD")
    assert codeqa.score(response, gold, mode) in (0.0, 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LONG)
def test_megabytes_take_linear_time(name: str, size: int):
    text, started = LONG[name](size), time.process_time()
    for mode in codeqa.MODES:
        assert codeqa.extract_choice(text, mode) is None
    assert time.process_time() - started < seconds(size)
