"""Verbatim copy: metrics and extractions as recorded, the edit distance against the textbook's, all total."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import verbatim_copy
from tests.rewards.hostile import LONG, SIZES, anything, cases, seconds

NAMES = ("exact_match", "char_accuracy", "levenshtein_similarity")


@pytest.mark.parametrize("case", cases("verbatim_copy.json", "metric_cases"), ids=lambda case: str(case["id"]))
def test_metrics_equal_the_recorded_ones(case: dict):
    recorded = {name: case[name] for name in NAMES}
    assert verbatim_copy.extract_box(case["final_answer"]) == case["after_box_extraction"]
    assert verbatim_copy.metrics(case["expected"], case["final_answer"]) == recorded
    assert verbatim_copy.metrics(case["expected"], case["after_box_extraction"]) == recorded


@pytest.mark.parametrize("case", cases("verbatim_copy.json", "answer_tag_cases"), ids=lambda case: str(case["id"]))
def test_tags_are_read_as_recorded(case: dict):
    assert verbatim_copy.extract_answer(case["completion"]) == case["extracted"]


# expected, answer, exact match, character accuracy, similarity
TABLE = [
    ("abc", "abc", 1.0, 1.0, 1.0),
    ("abc", "\\boxed{abc}", 1.0, 1.0, 1.0),
    ("x \\boxed{y", "x \\boxed{y", 1.0, 1.0, 1.0),
    ("a\\boxed{b}c", "a\\boxed{b}c", 1.0, 1.0, 1.0),
    ('{"a": {"b', '{"a": {"b', 1.0, 1.0, 1.0),
    ("abc ", "abc", 0.0, 3 / 4, 3 / 4),
    ("a\r\nb", "a\nb", 0.0, 1 / 4, 3 / 4),
    ("é", "e\u0301", 0.0, 0.0, 0.0),
    ("abcd", "xabcd", 0.0, 0.0, 4 / 5),
    ("abc", "", 0.0, 0.0, 0.0),
    ("", "", 1.0, 1.0, 1.0),
    ("abc", None, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("expected", "answer", "exact", "accuracy", "similarity"), TABLE)
def test_metrics_by_example(expected: str, answer: object, exact: float, accuracy: float, similarity: float):
    found = verbatim_copy.metrics(expected, answer)
    assert found == dict(zip(NAMES, (exact, accuracy, pytest.approx(similarity)), strict=True))


def textbook(one: str, other: str) -> int:
    """Wagner and Fischer's table, row by row."""
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]


few = st.text(alphabet="ab\u0301é\U0001f600", max_size=24)


@settings(max_examples=400)
@given(few, few)
def test_the_edit_distance_is_the_textbooks(one: str, other: str):
    assert verbatim_copy.levenshtein(one, other) == textbook(one, other)
    longest = max(len(one), len(other), 1)
    assert verbatim_copy.levenshtein_similarity(one, other) == 1.0 - textbook(one, other) / longest


def test_the_edit_distance_over_several_machine_words():
    rng = random.Random(5)
    for _ in range(20):
        one = "".join(rng.choices("abcdef", k=rng.randrange(60, 300)))
        other = list(one)
        for _ in range(rng.randrange(40)):
            other[rng.randrange(len(other))] = rng.choice(["", "x", "ab"])
        assert verbatim_copy.levenshtein(one, "".join(other)) == textbook(one, "".join(other))


def test_very_long_texts_get_a_lower_bound():
    start, end = "s" * 150_000, "e" * 50_000
    one, other = start + "abcabc" * 50_000 + end, start + "cbacba" * 40_000 + end
    found = verbatim_copy.levenshtein_similarity(one, other)
    assert found == pytest.approx(200_000 / 500_000)
    assert verbatim_copy.levenshtein_similarity(one, one) == 1.0


near_boxes = st.lists(st.sampled_from(["\\boxed{", "{", "}", "a", "<answer>", "</answer>", "\\", "\n"])).map("".join)


@settings(max_examples=300)
@given(anything | near_boxes, anything | near_boxes)
def test_metrics_are_total(expected: object, answer: object):
    assert all(0.0 <= value <= 1.0 for value in verbatim_copy.metrics(expected, answer).values())
    assert isinstance(verbatim_copy.extract_answer(answer), str)


@settings(max_examples=300)
@given(st.text() | near_boxes)
def test_a_perfect_copy_is_perfect_whatever_the_text(text: str):
    assert verbatim_copy.metrics(text, text) == dict.fromkeys(NAMES, 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LONG)
def test_megabytes_take_bounded_time(name: str, size: int):
    text, started = LONG[name](size), time.process_time()
    for expected in ("abc", text[:5000] + "x" + text[5000:]):
        assert verbatim_copy.metrics(expected, text)["exact_match"] == 0.0
    verbatim_copy.extract_answer(text)
    assert time.process_time() - started < seconds(size)
