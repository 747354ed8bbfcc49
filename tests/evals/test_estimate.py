"""Estimates of what an eval takes: sums, intervals, what is unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlm_env.evals.estimate import estimate, length_of_tasks, tasks_enough
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.rollout_stats import stats_of
from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.task import Task

BLANK = stats_of(Rollout(task_id="", scaffold="", stop_reason=StopReason.READY, score=Score(1.0)))


def lengths_of(*lengths: int | None) -> dict[str, int]:
    tasks = [
        Task("?", "", id=str(place), info={} if length is None else {"length_tokens": length})
        for place, length in enumerate(lengths)
    ]
    return length_of_tasks(tasks)


def known(tokens: dict[str, float], repeat: int = 0, **fields):
    made = [
        replace(BLANK, scaffold="rlm", task_id=task, repeat=repeat, root=Usage(round(count), 0, 0, 1), **fields)
        for task, count in tokens.items()
    ]
    return {one.key: one for one in made}


def test_what_is_left_is_like_what_is_known_at_each_length():
    lengths = lengths_of(100, 1000, 110, 1100)
    assert lengths == {"0": 100, "1": 1000, "2": 100, "3": 1000}
    found = estimate(lengths, ["rlm"], 2, known({"0": 50, "1": 500}))
    [row] = found.scaffolds
    assert row.amounts["prompt tokens"].total == 2 * (50 + 500 + 50 + 500)
    assert row.amounts["calls"].total == 8
    assert (row.rollouts, row.known) == (8, 2)
    assert row.amounts["prompt tokens"].low is None  # one task of a length says nothing of its scatter


def test_an_interval_is_by_students_t():
    lengths = lengths_of(*[None] * 10)
    amount = estimate(lengths, ["rlm"], 1, known({"0": 80, "1": 100, "2": 120})).scaffolds[0].amounts["prompt tokens"]
    assert amount.total == pytest.approx(1000)
    width = 4.3027 * 20 * np.sqrt(7 + 49 / 3)
    assert (amount.low, amount.high) == pytest.approx((1000 - width, 1000 + width), rel=0.01)


def test_what_is_known_is_the_least():
    amount = estimate(lengths_of(None, None, None), ["rlm"], 1, known({"0": 1, "1": 999})).total("prompt tokens")
    assert amount.low == 1000


def test_all_known_needs_no_interval():
    amount = estimate(lengths_of(None, None), ["rlm"], 1, known({"0": 10, "1": 30})).total("prompt tokens")
    assert (amount.low, amount.total, amount.high) == (40, 40, 40)


def test_the_interval_holds_what_comes():
    """Log-normal tokens, as those of rollouts are: 8 tasks are known, 92 are left."""
    rng, held = np.random.default_rng(1), 0
    lengths = lengths_of(*[None] * 100)
    for _ in range(200):
        values = rng.lognormal(8, 0.7, 100)
        pilot = known({str(place): value for place, value in enumerate(values[:8])})
        amount = estimate(lengths, ["rlm"], 1, pilot).total("prompt tokens")
        held += amount.low <= values.sum() <= amount.high
    assert held >= 0.88 * 200


def test_the_unknown_is_unknown_and_not_0():
    nothing = estimate(lengths_of(None), ["rlm"], 1, {})
    assert all(amount is None for amount in nothing.scaffolds[0].amounts.values())
    assert nothing.total("calls") is None
    unpriced = estimate(lengths_of(None, None), ["rlm"], 1, known({"0": 5}))
    assert unpriced.total("US$") is None
    priced = estimate(lengths_of(None, None), ["rlm"], 1, known({"0": 5}, cost=0.25))
    assert priced.total("US$").total == 0.5
    assert estimate(lengths_of(None), ["rlm", "standard"], 1, known({"0": 5})).total("calls") is None


def test_lengths_that_nobody_has_seen_are_left_out():
    found = estimate(lengths_of(100, 100, 5000, 5000), ["rlm"], 1, known({"0": 7, "1": 7}))
    assert found.unseen == {5000: 2}
    assert found.enough == tasks_enough(lengths_of(100, 100, 5000, 5000)) == 3
    assert found.total("prompt tokens").total == 14


def test_failed_rollouts_are_left_out():
    failed = known({"1": 9999}, outcome=Outcome.ERROR)
    [row] = estimate(lengths_of(None, None), ["rlm"], 1, known({"0": 5}) | failed).scaffolds
    assert (row.known, row.failed, row.amounts["prompt tokens"].total) == (1, 1, 10)
