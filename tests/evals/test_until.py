"""The test that ends a run: its errors by simulation, its interval, its order of tasks, its words."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.evals.betting import BETS, Capital, anytime_bounds
from rlm_env.evals.conditions import Condition, read_conditions
from rlm_env.evals.rollout_stats import stats_of
from rlm_env.evals.until import UntilTest, stored_stopping
from rlm_env.rollout import Rollout, Score, StopReason
from scripts.simulate_until import ALTERNATIVES, NULLS, decisions

RLM = [Condition("rlm", "standard")]
BLANK = stats_of(Rollout(task_id="", scaffold="", stop_reason=StopReason.READY, score=Score(1.0)))


def stats(scaffold: str, task: str, score: float | None, repeat: int = 0):
    one = replace(BLANK, scaffold=scaffold, task_id=task, repeat=repeat, score=score)
    return {one.key: one}


def both(task: str, ours: float | None, theirs: float | None, repeat: int = 0):
    return stats("rlm", task, ours, repeat) | stats("standard", task, theirs, repeat)


@pytest.mark.parametrize("name", NULLS)
def test_nothing_is_decided_wrongly_more_often_than_allowed(name):
    decided, _ = decisions(NULLS[name], runs=1000, tasks=150, level=0.05, seed=7)
    assert np.mean(decided != 0) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_the_level_that_is_asked_for_counts():
    """Looking after every task at an ordinary test would be wrong in far more than one run of five."""
    often, _ = decisions(NULLS["right or wrong, 0.5 each"], runs=1000, tasks=150, level=0.4, seed=7)
    seldom, _ = decisions(NULLS["right or wrong, 0.5 each"], runs=1000, tasks=150, level=0.05, seed=7)
    assert 0 < np.mean(seldom != 0) < np.mean(often != 0) <= 0.4


def test_a_run_decides_as_the_simulated_ones_do():
    drawn: list[np.ndarray] = []

    def draw(rng, runs, place):
        drawn.append(ALTERNATIVES["0.6 against 0.4"](rng, runs, place))
        return drawn[-1]

    decided, after = decisions(draw, runs=12, tasks=120, level=0.05)
    assert {0, 1} == set(decided.tolist())
    names = [str(place) for place in range(120)]
    for run, differences in enumerate(np.array(drawn).T):
        known = {}
        for name, difference in zip(names, differences.tolist(), strict=True):
            known |= both(name, max(difference, 0.0), max(-difference, 0.0))
        test = UntilTest(RLM, names, 1, 0.05)
        test.advance(known)
        assert (test.decided, test.counted) == (decided[run] == 1, after[run])


def test_differences_are_found_and_tasks_saved():
    decided, after = decisions(ALTERNATIVES["0.9 against 0.5"], runs=200, tasks=150, level=0.05)
    assert np.mean(decided == 1) > 0.98
    assert np.mean(after) < 40


def test_the_capital_is_that_of_bettors_on_a_grid():
    capital = Capital()
    for difference in (0.5, -1.0, 0.25):
        capital.add(difference)
    expected = np.mean([(1 + g * 0.5) * (1 - g) * (1 + g * 0.25) for g in BETS])
    assert float(capital.greater) == pytest.approx(math.log(expected))
    mirrored = np.mean([(1 - g * 0.5) * (1 + g) * (1 - g * 0.25) for g in BETS])
    assert float(capital.less) == pytest.approx(math.log(mirrored))


@settings(max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_the_interval_leaves_out_0_just_when_the_test_decides(differences):
    capital = Capital()
    for difference in differences:
        capital.add(difference)
    low, high = anytime_bounds(differences, 0.05, -1.0, 1.0)
    mean = sum(differences) / len(differences)
    assert -1.0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1.0
    assert (low > 1e-9) == (float(capital.greater) > math.log(40) + 1e-6) or abs(low) < 1e-6
    assert (high < -1e-9) == (float(capital.less) > math.log(40) + 1e-6) or abs(high) < 1e-6


def test_the_interval_holds_at_all_times_together():
    rng, missed = np.random.default_rng(3), 0
    for _ in range(60):
        values = rng.binomial(1, 0.3, 60).astype(float)
        bounds = [anytime_bounds(values[:n], 0.05, 0.0, 1.0) for n in (8, 16, 32, 60)]
        missed += any(not low <= 0.3 <= high for low, high in bounds)
    assert missed <= 6


def test_tasks_count_in_the_order_drawn_and_only_when_both_scaffolds_have_ended():
    test = UntilTest(RLM, ["a", "b", "c"], 1, 0.05)
    known = stats("rlm", "a", 1.0) | both("b", 1.0, 0.0)
    test.advance(known)
    assert test.counted == 0
    known |= stats("standard", "a", 0.0)
    test.advance(known)
    assert test.counted == 2
    test.advance(known | both("c", 1.0, 0.0), waiting={("rlm", "c", 0)})
    assert test.counted == 2


def test_repeats_are_averaged_within_their_task():
    test = UntilTest(RLM, ["a"], 2, 0.05)
    known = both("a", 1.0, 0.0)
    test.advance(known)
    assert test.counted == 0
    known |= both("a", 0.0, 0.5, repeat=1)
    test.advance(known)
    assert test.stopping(known).verdicts[0].difference.mean == 0.25
    assert test.told == "rlm>standard: p 1 after 1 task"
    assert UntilTest([], ["a"], 1, 0.05).told == ""


async def test_a_rollout_that_takes_long_does_not_let_all_tasks_begin():
    test, stopped = UntilTest(RLM, [str(number) for number in range(9)], 1, 0.05), False
    begun: list[str] = []

    async def worker(task: str) -> None:
        await test.turn(task, 3, lambda: stopped)
        begun.append(task)

    workers = [asyncio.create_task(worker(str(number))) for number in range(9)]
    await asyncio.sleep(0.01)
    assert begun == ["0", "1", "2"]
    test.advance(both("1", 1.0, 0.0))
    await asyncio.sleep(0.01)
    assert len(begun) == 3
    test.advance(both("1", 1.0, 0.0) | both("0", 1.0, 0.0))
    await asyncio.sleep(0.01)
    assert begun[3:] == ["3", "4"]
    stopped = True
    test.wake()
    await asyncio.wait_for(asyncio.gather(*workers), 10)


def test_a_task_without_a_score_is_passed_over():
    test = UntilTest(RLM, ["a", "b"], 1, 0.05)
    known = both("a", None, 1.0) | both("b", 1.0, 0.0)
    test.advance(known)
    stopping = test.stopping(known)
    assert (test.counted, stopping.passed_over, stopping.verdicts[0].tasks) == (2, 1, 1)


@pytest.mark.parametrize(("ours", "decision"), [(1.0, ">"), (0.0, "<")])
def test_it_decides_for_either_side_and_then_for_good(ours, decision):
    tasks = [str(number) for number in range(40)]
    known = {key: one for task in tasks for key, one in both(task, ours, 1 - ours).items()}
    test = UntilTest(RLM, tasks, 1, 0.05)
    test.advance({key: one for key, one in known.items() if int(key[1]) < 5})
    assert not test.decided
    test.advance(known)
    stopping = test.stopping(known)
    verdict = stopping.verdicts[0]
    assert (test.decided, verdict.decision, test.counted) == (True, decision, verdict.tasks)
    assert verdict.tasks < 12
    assert max(verdict.e_greater, verdict.e_less) >= 40
    assert verdict.p <= 0.05
    assert stored_stopping({"stopping": _as_json(stopping)}) == stopping
    at = test.counted
    test.advance(known)
    assert test.counted == at


def test_several_conditions_need_more_each():
    """Holm: the second of two conditions needs as much as two sides fewer than four would."""
    tasks = [str(number) for number in range(60)]
    known = {key: one for task in tasks for key, one in both(task, 1.0, 0.0).items()}
    known |= {key: one for task in tasks for key, one in stats("summary", task, 0.0).items()}
    alone, two = UntilTest(RLM, tasks, 1, 0.05), UntilTest([*RLM, Condition("rlm", "summary")], tasks, 1, 0.05)
    alone.advance(known)
    two.advance(known)
    assert two.decided
    assert two.counted > alone.counted
    one_of_two = UntilTest([*RLM, Condition("summary", "standard")], tasks, 1, 0.05)
    one_of_two.advance(known)
    assert not one_of_two.decided
    assert [verdict.decision for verdict in one_of_two.stopping(known).verdicts] == [">", None]


def test_what_is_asked_for_is_read():
    scaffolds = ("standard", "rlm", "summary")
    assert read_conditions(" rlm > standard,summary<rlm", scaffolds) == (
        Condition("rlm", "standard"),
        Condition("rlm", "summary"),
    )
    assert read_conditions(["rlm>standard,rlm>summary"], scaffolds) == read_conditions(
        ["rlm>standard", "rlm>summary"], scaffolds
    )
    assert read_conditions([], scaffolds) == read_conditions("", scaffolds) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rlm", "no comparison of two scaffolds; write it in quotes, as 'rlm>standard'"),
        ("rlm>=standard", "unknown scaffold '=standard'"),
        ("rlm>standard>summary", "no comparison"),
        ("rlm>", "a scaffold is missing"),
        ("rml>standard", "unknown scaffold 'rml'; did you mean"),
        ("rlm>rlm-tips", r"rlm-tips is not in scaffolds \(standard, rlm\)"),
        ("rlm>rlm", "with itself"),
        ("rlm>standard,standard>rlm", "compared twice"),
        ([3], "no comparison"),
    ],
)
def test_what_cannot_be_decided_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_conditions(text, ("standard", "rlm"))


def _as_json(stopping):
    import json
    from dataclasses import asdict

    return json.loads(json.dumps(asdict(stopping)))
