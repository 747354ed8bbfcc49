"""McNemar's test and the number of tasks needed, against scipy and simulation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.evals.pairs import mcnemar, tasks_needed

scipy_stats = pytest.importorskip("scipy.stats")
RIGHT_OR_WRONG = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def scaffolds(pairs) -> tuple[dict, dict]:
    return tuple({str(i): [float(pair[side])] for i, pair in enumerate(pairs)} for side in (0, 1))


@given(RIGHT_OR_WRONG)
def test_mcnemar_is_the_binomial_test_of_the_tasks_on_which_scaffolds_disagree(pairs):
    ours, theirs = scaffolds(pairs)
    test = mcnemar(ours, theirs)
    b, c = pairs.count((True, False)), pairs.count((False, True))
    assert (test.only_ours, test.only_theirs) == (b, c)
    expected = scipy_stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert test.p == pytest.approx(expected)
    back = mcnemar(theirs, ours)
    assert (back.only_ours, back.only_theirs, back.p) == (c, b, test.p)


def test_only_common_tasks_count_and_only_right_or_wrong():
    assert mcnemar({"a": [1.0], "b": [1.0]}, {"a": [0.0], "c": [0.0], "b": []}).only_ours == 1
    assert mcnemar({"a": [0.5]}, {"a": [1.0]}) is None
    assert mcnemar({"a": [1.0, 0.0]}, {"a": [1.0, 1.0]}) is None
    assert mcnemar({"a": [1.0, 1.0]}, {"a": [0.0, 0.0]}).only_ours == 1
    assert mcnemar({}, {"a": [1.0]}) is None
    assert mcnemar({"a": [1.0]}, {"b": [1.0]}) is None


def test_many_tasks_do_not_overflow():
    ours, theirs = scaffolds([(True, False)] * 3000 + [(False, True)] * 2900)
    assert 0.1 < mcnemar(ours, theirs).p < 0.3


def test_the_number_of_tasks_needed_has_the_power_that_it_promises():
    """Draws tasks from the observed pairs, as many as are said to be needed, and tests them."""
    pairs = [(True, False)] * 30 + [(False, True)] * 14 + [(True, True)] * 36 + [(False, False)] * 20
    n = tasks_needed(*scaffolds(pairs))
    assert 100 < n < 200
    rng = random.Random(0)
    found = sum(mcnemar(*scaffolds(rng.choices(pairs, k=n))).p < 0.05 for _ in range(400))
    assert 0.7 < found / 400 < 0.9  # the exact test is a little conservative


def test_equal_scaffolds_need_no_number():
    assert tasks_needed({"a": [1.0], "b": [0.0]}, {"a": [0.0], "b": [1.0]}) is None
    assert tasks_needed({}, {}) is None
    assert tasks_needed({"a": [1.0], "b": [1.0]}, {"a": [0.0], "b": [0.0]}) == 4


@given(RIGHT_OR_WRONG)
def test_the_number_is_the_same_from_both_sides(pairs):
    ours, theirs = scaffolds(pairs)
    assert tasks_needed(ours, theirs) == tasks_needed(theirs, ours)
