"""Tests of a difference, their correction and the number of tasks needed, against scipy, enumeration, simulation."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.evals.pairs import holm, mcnemar, sign_flip_p, tasks_needed, two_sided_p

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


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_the_sign_flip_test_is_the_enumeration_of_all_signs(pairs):
    ours, theirs = scaffolds(pairs)
    differences = [float(a) - float(b) for a, b in pairs]
    at_least = [
        abs(sum(d * s for d, s in zip(differences, signs, strict=True))) >= abs(sum(differences)) - 1e-9
        for signs in itertools.product((-1, 1), repeat=len(pairs))
    ]
    assert sign_flip_p(ours, theirs) == pytest.approx(sum(at_least) / len(at_least), abs=0.03)
    assert sign_flip_p(theirs, ours) == sign_flip_p(ours, theirs)


def test_the_sign_flip_test_of_right_and_wrong_is_mcnemars():
    ours, theirs = scaffolds([(True, False)] * 9 + [(False, True)] * 2 + [(True, True)] * 5)
    assert two_sided_p(ours, theirs, mcnemar(ours, theirs)) == mcnemar(ours, theirs).p
    assert two_sided_p(ours, theirs, None) == sign_flip_p(ours, theirs)
    assert sign_flip_p({}, {}) == sign_flip_p({"a": [0.5]}, {"a": [0.5]}) == 1.0


def test_holm_is_the_published_step_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_rejects_what_the_step_down_rejects(p_values):
    corrected = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, corrected, strict=True))
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [q for _, q in pairs] == sorted(q for _, q in pairs)
    assert min(corrected) == min(1.0, len(p_values) * min(p_values))
    rejected = {place for place, q in enumerate(corrected) if q <= 0.05}
    assert rejected == _rejected_one_by_one(p_values, 0.05)


def _rejected_one_by_one(p_values: list[float], level: float) -> set[int]:
    """As the paper tells it: the smallest first, until one is not small enough."""
    found = set()
    for place in sorted(range(len(p_values)), key=lambda place: p_values[place]):
        if p_values[place] * (len(p_values) - len(found)) > level:
            break
        found.add(place)
    return found
