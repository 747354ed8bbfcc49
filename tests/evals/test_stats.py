"""The statistics against brute force, known values and scipy."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.evals import explained, stats

scipy_stats = pytest.importorskip("scipy.stats")

SCORES = st.dictionaries(
    st.text(max_size=3), st.lists(st.floats(0, 1, allow_nan=False), max_size=4), min_size=1, max_size=6
)


def test_every_task_counts_the_same():
    scores = {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0], "c": []}
    estimate = stats.clustered_mean(scores)
    assert estimate.mean == 0.5
    assert estimate.tasks == 2


def test_no_scores_is_no_estimate():
    assert stats.clustered_mean({}) is None
    assert stats.clustered_mean({"a": []}) is None
    assert stats.paired_difference({"a": [1.0]}, {"b": [1.0]}) is None
    assert stats.majority_vote({"a": []}) is None
    assert stats.mean_pass_at_k({"a": [1.0]}, 2) is None


@given(SCORES)
def test_an_interval_holds_its_mean_and_stays_within_bounds(scores):
    estimate = stats.clustered_mean(scores)
    if estimate is not None:
        assert 0.0 <= estimate.low <= estimate.mean <= estimate.high <= 1.0


@given(SCORES, SCORES)
def test_a_difference_is_antisymmetric_in_its_mean(ours, theirs):
    there, back = stats.paired_difference(ours, theirs), stats.paired_difference(theirs, ours)
    if there is None:
        assert back is None
    else:
        assert there.mean == pytest.approx(-back.mean, abs=1e-12)
        assert -1.0 <= there.low <= there.mean <= there.high <= 1.0


def test_the_bootstrap_agrees_with_all_resamples_enumerated():
    values = [0.0, 0.3, 0.4, 0.9, 1.0, 0.2]
    means = [np.mean(resample) for resample in itertools.product(values, repeat=len(values))]
    tail = stats.expanded_tail(len(values))
    low, high = np.quantile(means, [tail, 1 - tail])
    found = stats.clustered_mean({str(i): [value] for i, value in enumerate(values)})
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_draws_counted_by_value_are_the_draws_made_one_by_one(monkeypatch):
    values = np.random.default_rng(1).choice([0.0, 0.25, 0.75, 1.0], size=stats.MANY + 1, p=[0.1, 0.3, 0.2, 0.4])
    counted = stats.bootstrap_bounds(values, 0)
    monkeypatch.setattr(stats, "MANY", len(values))
    assert counted == pytest.approx(stats.bootstrap_bounds(values, 0), abs=0.001)
    assert counted != stats.bootstrap_bounds(values, 0)


def test_repeats_of_a_task_are_not_independent_evidence():
    """Ten tasks answered 50 times each alike say no more than ten tasks answered once."""
    once = {str(i): [float(i % 2)] for i in range(10)}
    often = {task: values * 50 for task, values in once.items()}
    assert stats.clustered_mean(once) == stats.clustered_mean(often)


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not():
    scores = {str(i): [i / 12] for i in range(13)}
    assert stats.clustered_mean(scores, seed=1) == stats.clustered_mean(scores, seed=1)
    assert stats.clustered_mean(scores, seed=1) != stats.clustered_mean(scores, seed=2)


@pytest.mark.parametrize("n", [1, 5, 32])
def test_where_all_agree_the_interval_is_clopper_and_pearsons(n):
    right = stats.clustered_mean({str(i): [1.0] for i in range(n)})
    wrong = stats.clustered_mean({str(i): [0.0] for i in range(n)})
    exact = scipy_stats.binomtest(n, n).proportion_ci(0.95)
    assert (right.low, right.high) == pytest.approx((exact.low, 1.0))
    assert (wrong.low, wrong.high) == pytest.approx((0.0, 1.0 - exact.low))


def test_almost_zero_is_no_more_certain_than_zero():
    zero = stats.clustered_mean({str(i): [0.0] for i in range(4)})
    almost = stats.clustered_mean({"0": [5e-8], **{str(i): [0.0] for i in range(1, 4)}})
    assert almost.high == pytest.approx(zero.high, abs=1e-6)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = random.Random(0)
    for n in (6, 20, 50):
        covered = 0
        for trial in range(200):
            scores = {str(i): [float(rng.random() < 0.4)] for i in range(n)}
            estimate = stats.clustered_mean(scores, seed=trial)
            covered += estimate.low <= 0.4 <= estimate.high
        assert covered >= 0.89 * 200, n


@pytest.mark.parametrize(("tasks", "least", "most"), [(4, 0.10, 0.30), (explained.FEW_TASKS, 0.02, 0.12)])
def test_intervals_of_few_tasks_are_too_short_as_reports_say(monkeypatch, tasks, least, most):
    monkeypatch.setattr(stats, "RESAMPLES", 1_000)
    rng = random.Random(1)
    draws = {"even": (lambda: rng.uniform(0.2, 1.0), 0.6), "skewed": (lambda: rng.betavariate(0.3, 3.0), 0.3 / 3.3)}
    for name, (draw, truth) in draws.items():
        missed = 0
        for trial in range(200):
            estimate = stats.clustered_mean({str(task): [draw()] for task in range(tasks)}, seed=trial)
            missed += not estimate.low <= truth <= estimate.high
        assert least <= missed / 200 <= most, (name, missed)


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 10, 31, 1000])
def test_students_quantile(degrees):
    assert stats.student_quantile(degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees), rel=2e-3)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(case):
    samples, correct, k = case
    outcomes = [i < correct for i in range(samples)]
    subsets = list(itertools.combinations(outcomes, k))
    assert stats.pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize("case", [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_what_makes_no_sense(case):
    with pytest.raises(ValueError, match="pass@k needs"):
        stats.pass_at_k(*case)


def test_a_partly_right_answer_does_not_pass():
    assert stats.mean_pass_at_k({"a": [0.75, 0.75], "b": [1.0, 0.0]}, 2).mean == 0.5


def test_the_majority_ignores_case_blanks_and_silence():
    votes = [(" Spam ", 1.0), ("SPAM", 1.0), ("ham", 0.0), ("", 0.0), ("", 0.0), ("  ", 0.0)]
    assert stats.majority_vote({"a": votes}).mean == 1.0
    assert stats.majority_vote({"a": [("", 0.0), (" ", 0.0)]}).mean == 0.0


def test_a_tie_counts_with_its_mean_in_any_order():
    votes = [("x", 1.0), ("y", 0.0), ("z", 0.0), ("x", 1.0), ("y", 0.0)]
    found = {stats.majority_vote({"a": list(order)}).mean for order in itertools.permutations(votes)}
    assert found == {0.5}


def test_a_paired_interval_is_narrower_than_two_apart():
    """Tasks differ far more than scaffolds do; only pairing shows it."""
    rng = random.Random(1)
    theirs = {str(i): [rng.random() * 0.9] for i in range(40)}
    ours = {task: [value + 0.05 + 0.01 * rng.random()] for task, [value] in theirs.items()}
    paired = stats.paired_difference(ours, theirs)
    assert paired.low > 0.0
    assert math.isclose(paired.mean, 0.055, abs_tol=0.005)
    assert stats.clustered_mean(ours).low < stats.clustered_mean(theirs).high
