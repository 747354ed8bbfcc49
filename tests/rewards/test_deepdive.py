"""DeepDive: verdicts, format and redundancy as recorded; every function total."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import deepdive
from tests.rewards.hostile import LONG, SIZES, anything, cases, seconds


@pytest.mark.parametrize("case", cases("deepdive.json", "judge_cases"), ids=lambda case: str(case["id"]))
def test_verdicts_equal_the_recorded_ones(case: dict):
    text = case["judge_text"]
    assert deepdive.judge_verdict(text) is bool(case["deepdive_reward"])
    ours = {"Correct : yes": True, "Incorrect: yes": False}  # where `strict` reads more, or less, than BrowseComp-Plus
    assert deepdive.judge_verdict(text, "strict") is ours.get(text, bool(case["browsecomp_plus_correct"]))
    assert deepdive.judge_extracted(text) == case["deepdive_extracted"]


@pytest.mark.parametrize("case", cases("deepdive.json", "format_cases"), ids=lambda case: str(case["id"]))
def test_format_equals_the_recorded_one(case: dict):
    assert deepdive.trajectory_is_valid(case["data"], case["response"]) is case["valid"]


@pytest.mark.parametrize("case", cases("deepdive.json", "redundancy_cases"), ids=lambda case: str(case["id"]))
def test_redundancy_equals_the_recorded_one(case: dict):
    assert deepdive.redundancy(case["queries"]) == case["mean_pairwise_jaccard_word_tokens"]


# answer, gold, aliases, whether they are equal
EQUAL = [
    ("12 March 1874", "12 March 1874", (), True),
    ("March 12, 1874", "12 March 1874", (), True),
    ("on the 12th of Mar. 1874", "12 March 1874", (), True),
    ("1874-03-12", "12 March 1874", (), True),
    ("13 March 1874", "12 March 1874", (), False),
    ("1874", "12 March 1874", (), False),
    ("12 March 1874 or 13 March 1874", "12 March 1874", (), False),
    ("64949", "64,949", (), True),
    ("64 949 inhabitants", "64,949", (), True),
    ("about 64,949 people.", "64,949", (), True),
    ("64,949.0", "64,949", (), True),
    ("64,950", "64,949", (), False),
    ("64,949 or 64,950", "64,949", (), False),
    ("6494", "64,949", (), False),
    ("1874", "1874", (), True),
    ("in 1874", "1874", (), True),
    ("12 March 1874", "1874", (), False),
    ("between 1800 and 1899", "1874", (), False),
    ("372 km", "372 kilometres", (), True),
    ("The Little Harbour", "the little harbour", (), True),
    ("Little Harbour.", "The Little Harbour", (), True),
    ("Škoda", "skoda", (), True),
    ("Mara Velden (botanist)", "Mara Velden", (), True),
    ("Mara Velden", "Mara Velden (botanist)", ("Mara Velden",), True),
    ("Mara Veldin", "Mara Velden", (), False),
    ("Mara Velden, Mara Veldin", "Mara Velden", (), False),
    ("Orsund", "Velstad", ("Orsund",), True),
    ("Pinik & Nernen", "Pinik and Nernen", (), True),
    ("A", "A", (), True),
    ("", "Velstad", (), False),
    ("...", "Velstad", (), False),
    ("Velstad " * 60, "Velstad", (), False),
]


@pytest.mark.parametrize(("answer", "gold", "aliases", "equal"), EQUAL)
def test_equal_answers_by_rules(answer: str, gold: str, aliases: tuple, equal: bool):
    assert deepdive.answers_match(answer, gold, aliases) is equal


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Answer: Velstad", "Velstad"),
        ("I read it.\n**Answer:** Velstad**", "Velstad"),
        ("Answer: no\nFinal answer: Velstad\n", "Velstad"),
        ("so \\boxed{Velstad}.", "Velstad"),
        ("Velstad", "Velstad"),
        ("  ", ""),
        (None, ""),
    ],
)
def test_the_answer_that_a_reply_ends_with(output: object, answer: str):
    assert deepdive.extract_answer(output) == answer


@settings(max_examples=300)
@given(anything, anything)
def test_scoring_is_total_and_an_answer_equals_itself(output: object, gold: object):
    assert deepdive.score(output, gold) in (0.0, 1.0)
    answer = deepdive.extract_answer(gold)
    if any(c.isascii() and c.isalpha() for c in answer) and len(answer) <= 300 and not any(c.isdigit() for c in answer):
        assert deepdive.answers_match(answer, answer)


@settings(max_examples=200)
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_numbers_are_equal_by_value(one: int, other: int):
    assert deepdive.answers_match(f"{one:,}", str(one))
    assert deepdive.answers_match(f"it is {other:,} metres", f"{one} metres") is (one == other)


# judge's text, official, strict
VERDICTS = [
    ("Correct: yes\nExtracted final answer: Paris", True, True),
    ("correct: No", False, False),
    ("Correct : yes", True, True),
    ("**Correct:** yes", False, True),
    ("No, the response names yesterday's winner", False, False),
    ("yes", False, False),
    ("correct: maybe yes", False, False),
    ("correct: no\ncorrect: yes", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("text", "official", "strict"), VERDICTS)
def test_verdicts_by_example(text: str, official: bool, strict: bool):
    assert deepdive.judge_verdict(text) is official
    assert deepdive.judge_verdict(text, "strict") is strict


@pytest.mark.parametrize(
    "text",
    [
        "correct: yes/no",
        "correct: yes | no",
        "correct: yes or no",
        "**correct:** yes or **no**",
        "correct: yes, but no",
        "correct: yes. No.",
        "correct: yes\ncorrect: no",
        "correct: no\n\n**Correct:** yes",
        "is it correct: yes?",
        "correct: yes?",
        "correct: yes if the answers match",
        "incorrect: yes",
        "Incorrect: no",
        "in-correct: yes",
        "is_correct: yes",
        "not correct: yes",
        "correct: yesterday",
        "correct: yes-ish",
        "correct: nothing",
        "correct: none",
        "correctness: yes",
    ],
)
def test_no_strict_verdict(text: str):
    assert not deepdive.judge_has_verdict(text, "strict")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("**Correct:** **yes**", True),
        ("**Correct: yes**", True),
        ("__correct__: _no_", False),
        ("correct: `yes`", True),
        ("`correct`: `no`", False),
        ("Correct : yes", True),
        ("Correct：no", False),
        ('{"correct": "no"}', False),
        ('{"extracted_final_answer": "X", "correct": "yes", "confidence": 90}', True),
        ("1. correct: yes", True),
        ("> - **correct**:\n  yes", True),
        ("Extracted final answer: X; correct: no", False),
        ("Correct: yes, the two dates are the same.", True),
        ("correct: no, since 'yes' was expected", False),
        ("correct: yes (no discrepancy was found)", True),
        ("correct: yes. So the answer to your question is yes.", True),
        ("correct: yes. If asked, I would say more.", True),
        ("You ask: is it correct: yes?\ncorrect: no", False),
        ("The form is correct: yes/no\n\ncorrect: no", False),
        ('Whether "correct: yes" applies:\nthe year differs.\ncorrect: no', False),
        ("correct: yes\nAs said, correct: yes", True),
    ],
)
def test_strict_verdicts(text: str, verdict: bool):
    assert deepdive.judge_has_verdict(text, "strict")
    assert deepdive.judge_verdict(text, "strict") is verdict


def test_an_explicitly_invalid_format_is_invalid():
    assert not deepdive.trajectory_is_valid({"format_valid": False}, "an answer")
    assert deepdive.trajectory_is_valid({"format_valid": None, "task_unfinished": False}, "an answer")
    assert not deepdive.trajectory_is_valid(None, "an answer")
    assert not deepdive.trajectory_is_valid({}, None)


def test_redundancy_is_the_mean_over_all_pairs():
    queries = ["a b", "b c", "c d", "a b", "A  B!"]

    def jaccard(one: set, other: set) -> float:
        return len(one & other) / len(one | other)

    words = [set("ab"), set("bc"), set("cd"), set("ab"), set("ab")]
    pairs = [jaccard(words[i], words[j]) for i in range(5) for j in range(i)]
    assert deepdive.redundancy(queries) == pytest.approx(sum(pairs) / len(pairs))
    assert deepdive.redundancy(iter(queries)) == deepdive.redundancy(queries)
    assert deepdive.redundancy(["!", "?"]) == 0.0
    assert deepdive.redundancy("one query") == 0.0


def test_redundancy_leaves_empty_queries_out_as_the_original_does():
    assert deepdive.redundancy(["", "a b", "a b"]) == 1.0
    assert deepdive.redundancy(["a b", " \n", None, "a b"]) == 1.0
    assert deepdive.redundancy(["", "a b"]) == 0.0
    assert deepdive.redundancy([""] * 1000 + ["a b", "a b"]) == 1.0


def test_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="mode must be official or strict, got 'kind'"):
        deepdive.judge_verdict("x", "kind")


near_verdicts = st.lists(st.sampled_from(["correct", "Correct", "**", ":", " ", "yes", "no", "In", "\n"])).map("".join)


@settings(max_examples=300)
@given(anything | near_verdicts, anything)
def test_every_function_is_total(one: object, other: object):
    for mode in deepdive.MODES:
        assert deepdive.judge_verdict(one, mode) in (True, False)
    assert isinstance(deepdive.judge_extracted(one), str)
    assert deepdive.trajectory_is_valid(other, one) in (True, False)
    assert 0.0 <= deepdive.redundancy(other) <= 1.0


@settings(max_examples=200)
@given(st.lists(st.text(alphabet="ab c\u0301é", max_size=6), max_size=8))
def test_redundancy_lies_between_none_and_all(queries: list[str]):
    assert 0.0 <= deepdive.redundancy(queries) <= 1.0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LONG)
def test_megabytes_take_linear_time(name: str, size: int):
    text, started = LONG[name](size), time.process_time()
    for mode in deepdive.MODES:
        assert deepdive.judge_verdict(text, mode) is False
    deepdive.judge_extracted(text)
    assert deepdive.score(text, "Velstad") == 0.0
    assert deepdive.score("Answer: " + text, "64,949") == 0.0
    assert 0.0 <= deepdive.redundancy([text] * 5) <= 1.0
    assert 0.0 <= deepdive.redundancy(text.split(" ")) <= 1.0
    assert time.process_time() - started < seconds(size)
