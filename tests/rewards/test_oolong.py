"""Oolong scores: equal to the original's on recorded cases, and total on anything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import oolong
from tests.rewards.hostile import LONG, SIZES, anything, cases, repeated, seconds

ANSWER_TYPES = ["LABEL", "NUMERIC", "COMPARISON", "USER", "DATE", "MONTH_YEAR"]


@pytest.mark.parametrize("case", cases("oolong.json"), ids=lambda case: str(case["id"]))
def test_official_equals_the_recorded_score(case: dict):
    expected = 0.0 if "raises" in case else case["score"]
    assert oolong.score(case["output"], case["gold"], case["subset"], case["answer_type"]) == expected


@pytest.mark.parametrize("case", cases("oolong_pairs.json"), ids=lambda case: str(case["id"]))
def test_pairs_f1_equals_the_recorded_values(case: dict):
    found = oolong.pairs_f1(case["prediction"], case["gold"])
    assert found == {name: case[name] for name in ("precision", "recall", "f1")}


# (subset, answer type, gold, output, official, strict): the rules by example.
TABLE = [
    ("synth", "LABEL", "['spam']", "Label: spam", 1.0, 1.0),
    ("synth", "LABEL", "['spam']", "Label: Spam", 0.0, 1.0),
    ("synth", "LABEL", "['spam']", "Label: spam, or ham", 0.0, 0.0),
    ("synth", "LABEL", "['spam']", "I believe the most common label is spam", 1.0, 0.0),
    ("synth", "LABEL", "['spam']", "Label: ham\nLabel: **spam**.", 0.0, 1.0),
    ("synth", "LABEL", "['spam']", "it is not spam", 0.0, 0.0),
    ("synth", "NUMERIC", "[12]", "Answer: 13", 0.75, 0.0),
    ("synth", "NUMERIC", "[1234]", "Answer: 1,234", 0.0, 1.0),
    ("synth", "NUMERIC", "[0]", "Answer: 0", 1.0, 1.0),
    ("synth", "NUMERIC", "[0]", "", 0.0, 0.0),
    ("synth", "NUMERIC", "[0]", "Answer: ", 0.0, 0.0),
    ("synth", "USER", "[44106]", "User: 44106", 1.0, 1.0),
    ("synth", "USER", "[44106]", "User: 44107", 0.0, 0.0),
    ("synth", "COMPARISON", "['less common than']", "Answer: ham is less common than spam", 1.0, 1.0),
    ("synth", "COMPARISON", "['more common than']", "Answer: ham is not more common than spam", 1.0, 0.0),
    ("synth", "COMPARISON", "['more common than']", "Answer: more common than, or less common than, it", 1.0, 0.0),
    ("synth", "COMPARISON", "['the same frequency']", "Answer: a is the same frequency before May 01, 2023", 1.0, 1.0),
    ("synth", "DATE", "[datetime.date(2023, 1, 6)]", "Date: 01/06/2023", 1.0, 1.0),
    ("synth", "DATE", "[datetime.date(2023, 1, 6)]", "Date: 6.1.2023", 0.0, 0.0),
    ("synth", "DATE", "[datetime.date(2023, 11, 26)]", "Date: 26/11/2023", 1.0, 0.0),
    ("synth", "MONTH_YEAR", "['January 2022']", "Answer: January 2022", 1.0, 1.0),
    ("real", None, "84", "The total is \\boxed{84}.", 1.0, 1.0),
    ("real", None, "84", "\\boxed{85}", 0.75, 0.0),
    ("real", None, "84", "84", 0.0, 1.0),
    ("real", None, "84", "First \\boxed{84}, no: \\boxed{10}", 1.0, 0.0),
    ("real", None, "Fireball", "\\boxed{\\text{fireball}}", 1.0, 1.0),
    ("real", None, "Fireball, Shield", "\\boxed{Shield, Fireball, Bless, Hex}", 1.0, 2 / 3),
    ("real", None, "Fireball, Fireball, Shield", "\\boxed{Fireball, Fireball, Shield}", 2 / 3, 1.0),
]


@pytest.mark.parametrize(("subset", "kind", "gold", "output", "official", "strict"), TABLE)
def test_modes_by_example(subset: str, kind: str | None, gold: str, output: str, official: float, strict: float):
    assert oolong.score(output, gold, subset, kind) == official
    assert oolong.score(output, gold, subset, kind, mode="strict") == pytest.approx(strict)


def test_published_prefix_of_the_answer_type_and_python_golds_are_taken():
    assert oolong.score("Answer: 13", "[12]", "synth", "ANSWER_TYPE.NUMERIC") == 0.75
    assert oolong.score("Answer: 13", [12], "synth", "NUMERIC") == 0.75
    assert oolong.score("Date: 2023-01-06", [date(2023, 1, 6)], "synth", "DATE") == 1.0
    assert oolong.score("\\boxed{84}", 84, "real") == 1.0
    assert oolong.score("\\boxed{a, b}", ["a", "b"], "real") == 1.0


def test_an_incomplete_date_is_never_completed_from_today():
    today = date.today()
    gold = f"[datetime.date({today.year}, {today.month}, {today.day})]"
    for partial in (f"{today:%B} {today.year}", f"{today:%A}", f"{today.year}", "10pm"):
        assert oolong.score(f"Date is {partial}", gold, "synth", "DATE") == 0.0
        assert oolong.score(partial, gold, "synth", "DATE") == 0.0


def test_unknown_subset_and_mode_are_refused_by_name():
    with pytest.raises(ValueError, match="subset must be one of synth, real, pairs, got 'both'"):
        oolong.score("x", "['x']", "both")
    with pytest.raises(ValueError, match="mode must be official or strict, got 'lenient'"):
        oolong.score("x", "['x']", mode="lenient")


def test_judge_says_why():
    assert oolong.judge("Answer: 12.0", "[12]", "synth", "NUMERIC") == (0.0, "read '12.0'")
    assert oolong.judge("", "[12]")[1] == "the output is empty"
    assert "not a list" in oolong.judge("spam", "spam")[1]


def test_strict_pairs_are_all_there_each_once_lower_number_first():
    gold = "(9, 10)\n(2, 9)"
    for answer, strict in [
        ("(2, 9)\n(9, 10)", 1.0),
        ("They are (9,10) and (2,9).", 1.0),
        ("(9, 10)", 0.0),
        ("(9, 10)\n(9, 10)\n(2, 9)", 0.0),
        ("(10, 9)\n(2, 9)", 0.0),
        ("9, 10\n2, 9", 0.0),
        ("(9, 10)\n(2, 9)\n(2, 10)", 0.0),
    ]:
        assert oolong.score(answer, gold, "pairs", mode="strict") == strict, answer
    assert oolong.score("9, 10", gold, "pairs") == pytest.approx(2 / 3)
    assert oolong.score("", gold, "pairs") == 0.0
    assert oolong.score("(-2, -10), (-3, 1)", "(-10, -2), (-3, 1)", "pairs", mode="strict") == 0.0
    assert oolong.score("(-10, -2), (-3, 1)", "(-2, -10), (1, -3)", "pairs", mode="strict") == 1.0


def test_pairs_f1_reads_lists_of_pairs_and_bare_pairs():
    assert oolong.pairs_f1("1, 2", [(2, 1)])["f1"] == 1.0
    assert oolong.pairs_f1("(01, 2)", ["(1, 2)"])["f1"] == 1.0
    assert oolong.pairs_f1("(1, 2) and also 5, 6", ["(1, 2)"])["precision"] == 1.0
    assert oolong.pairs_f1(None, ["(1, 2)"]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert oolong.pairs_f1("everything", "(1, 2)")["f1"] == 0.0


answers = st.one_of(
    anything,
    st.text(alphabet="\\boxedt{}, 0123456789:*[]'-\n"),
    st.lists(st.dates(), max_size=3),
    st.sampled_from(["['spam']", "[12]", "[datetime.date(2023, 1, 6)]", "84", "Fireball, Shield", "[-1]", "[1e999]"]),
    st.dates().map(lambda day: f"Date: {day}"),
    st.from_regex(r"(Label|Answer|User|Date): .{0,40}", fullmatch=True),
)


@settings(max_examples=400)
@given(
    answers, answers, st.sampled_from(oolong.SUBSETS), st.sampled_from([None, "", "x", *ANSWER_TYPES]),
    st.sampled_from(oolong.MODES),
)  # fmt: skip
def test_score_is_total(output: object, gold: object, subset: str, kind: str | None, mode: str):
    value = oolong.score(output, gold, subset, kind, mode)
    assert isinstance(value, float)
    assert 0.0 <= value <= 1.0


@settings(max_examples=200)
@given(answers, answers)
def test_pairs_f1_is_total(prediction: object, gold: object):
    found = oolong.pairs_f1(prediction, gold)
    assert all(0.0 <= value <= 1.0 for value in found.values())


HOSTILE: dict[str, Callable[[int], str]] = {
    **{name: LONG[name] for name in ("letters", "blanks", "digits", "nested boxes", "combining")},
    "colons": repeated(":"),
    "open boxes": repeated("\\boxed{\\text{"),
    "open boxes, one brace": lambda size: repeated("\\boxed{\\text{")(size) + "}",
    "opening braces": lambda size: "\\boxed" + "{" * size,
    "brackets": repeated("("),
    "half pairs": repeated("(1, "),
    "number row": repeated("1 "),
    "keys": repeated("Answer:\n"),
    "stars": lambda size: "*" * size + "answer",
    "lines of stars": repeated("*** \n"),
    "commas": repeated(","),
    "date-like": lambda size: "Date: " + repeated("1/")(size),
}


LONG_CASES = [
    ("synth", "DATE", "[datetime.date(2023, 1, 6)]"),
    ("synth", "COMPARISON", "['more common']"),
    ("real", None, "a, b"),
    ("pairs", None, "(1, 2)"),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HOSTILE)
def test_megabytes_are_scored_in_linear_time(name: str, size: int):
    text, started = HOSTILE[name](size), time.process_time()
    for mode in oolong.MODES:
        for subset, kind, gold in LONG_CASES:
            assert 0.0 <= oolong.score(text, gold, subset, kind, mode) <= 1.0
    assert time.process_time() - started < 2 * seconds(size)  # eight scores
