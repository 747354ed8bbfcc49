"""A run that fails in the same way over and over is stopped; one that fails now and then is not."""

from __future__ import annotations

import pytest

from rlm_env.evals.guard import ERRORS, REFUSALS, Guard
from rlm_env.evals.outcomes import Outcome, outcome_of, sub_calls_failed
from rlm_env.evals.rollout_stats import RolloutStats, stats_of
from rlm_env.llm.base import ContextOverflow
from rlm_env.rollout import Rollout, Score, StopReason, SubCall
from rlm_env.runs.errors import RunStopped
from rlm_env.scaffolds.sub_llm import _REFUSALS, ALL_THOUGHT, NO_ANSWER, STOPPED

URL = "http://x/v1: /chat/completions answered"


def failed(error: str, scaffold: str = "rlm") -> RolloutStats:
    return stats_of(Rollout(scaffold=scaffold, stop_reason=StopReason.ERROR, error=error))


def well(scaffold: str = "rlm") -> RolloutStats:
    return stats_of(Rollout(scaffold=scaffold, answer="7", score=Score(0.0)))


def rollout_with(*errors: str | None) -> Rollout:
    calls = [SubCall(i, 0, 0, [], error=error) for i, error in enumerate(errors)]
    return Rollout(answer="7", score=Score(0.0), sub_calls=calls)


@pytest.mark.parametrize(
    "error",
    [
        f"EndpointError: {URL} 404: The model `nosuch` does not exist",
        f"EndpointError: {URL} 401: Incorrect API key provided: ***",
        f"EndpointError: {URL} 429: You exceeded your current quota, please check your plan (request 12345678)",
        f"EndpointError: {URL} 402: insufficient credits",
        f"every sub-call failed: {URL} 400: tools are not supported",
    ],
)
def test_a_few_equal_refusals_are_enough(error):
    guard = Guard()
    guard.add(well("standard"))
    for _ in range(REFUSALS - 1):
        guard.add(failed(error))
    with pytest.raises(RunStopped) as stop:
        guard.add(failed(error))
    assert error in str(stop.value)
    assert stop.value.exit_code == 3


def test_of_other_errors_more_are_needed_and_nothing_that_ended_well():
    guard, lucky = Guard(), Guard()
    lucky.add(well("standard"))
    for n in range(ERRORS - 1):
        guard.add(failed(f"LLMError: no reply within {n} s"))
    with pytest.raises(RunStopped):
        guard.add(failed("LLMError: no reply within 600 s"))
    for _ in range(3 * ERRORS):
        lucky.add(failed("LLMError: no reply within 600 s"))


def test_errors_that_differ_and_errors_between_successes_stop_nothing():
    guard = Guard()
    for n in range(20):
        guard.add(failed(f"EndpointError: {URL} 404: gone" if n % 2 else f"EndpointError: {URL} 401: no key"))
        guard.add(well())


def test_a_rollout_whose_sub_calls_the_engine_refused_is_an_error():
    refused = rollout_with(f"{URL} 404: no such model", f"{URL} 404: no such model")
    assert outcome_of(refused) is Outcome.ERROR
    stats = stats_of(refused)
    assert (stats.score, stats.error) == (None, f"every sub-call failed: {URL} 404: no such model")
    assert outcome_of(rollout_with(f"{URL} 500: once", None)) is Outcome.ANSWERED


@pytest.mark.parametrize("own", [ALL_THOUGHT, NO_ANSWER, STOPPED, *_REFUSALS.values(), str(ContextOverflow(9, 5))])
def test_what_the_policy_did_itself_is_no_error(own):
    assert sub_calls_failed(rollout_with(own, own)) is None
    assert outcome_of(rollout_with(own)) is Outcome.ANSWERED
