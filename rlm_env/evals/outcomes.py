"""The outcome of a rollout in one word: a score alone does not tell a wrong answer from none.

Why a rollout ended is its `StopReason` (`rlm_env/rollout.py`).
"""

from __future__ import annotations

import re
from enum import StrEnum

from rlm_env.rollout import Rollout, StopReason


class Outcome(StrEnum):
    """Every rollout has exactly one; only `ERROR` has no score."""

    ANSWERED = "answered"
    """An answer that could be read, right or wrong."""
    UNPARSED = "unparsed"
    """No code in any reply, no answer, or none that the scorer found in the text."""
    REFUSED = "refused"
    """The model, or its provider's filter, declined to answer."""
    TIMEOUT = "timeout"
    """The time limit of the rollout was reached; the answer so far was scored."""
    BUDGET = "budget"
    """Another budget was used up (turns, tokens, sub-calls, length of a reply); the answer so far was scored."""
    OVERFLOW = "overflow"
    """The root prompt did not fit the window; 0 if there was no answer yet."""
    ERROR = "error"
    """The engine, the REPL or the scorer failed, or the engine failed in every sub-call. Left out of every mean, shown,
    and repeated by --resume; where only the scorer failed, scored by it."""


BUDGETS = (
    StopReason.MAX_TURNS,
    StopReason.ROOT_TOKENS,
    StopReason.SUB_TOKENS,
    StopReason.SUB_CALLS,
    StopReason.LENGTH,
)
FILTERED = frozenset({"content_filter", "refusal"})
"""Finish reasons of a reply that the provider or the model withheld."""
REFUSAL = re.compile(
    r"\s*(?:(?:i['’]?m|i am) sorry,?(?: but)? |sorry,? (?:but )?|unfortunately,? )?"
    r"i (?:cannot|can['’]?t|can not|won['’]?t|will not|am unable to|am not able to|['’]?m unable to) "
    r"(?:help|assist|comply|answer|provide|fulfil|do that|continue|discuss)\b",
    re.IGNORECASE,
)
SUB_CALLS_FAILED = "every sub-call failed: "
OWN_FAULT = re.compile(
    r"prompt too long|the budget of sub-LLM|the time of the task|its token limit was used up|it called tools instead|"
    r"it was stopped before"
)
"""Reasons of failed sub-calls that are not the engine's doing: they count like any other outcome of the policy."""
REFUSAL_CHARS = 600
"""A longer text is an answer, however it begins."""


def outcome_of(rollout: Rollout) -> Outcome:
    """The outcome of a rollout; without a score it is an error."""
    if rollout.score is None or rollout.stop_reason in (StopReason.ERROR, StopReason.CANCELLED):
        return Outcome.ERROR
    if sub_calls_failed(rollout) is not None:
        return Outcome.ERROR
    if rollout.stop_reason is StopReason.CONTEXT_OVERFLOW:
        return Outcome.OVERFLOW
    if rollout.score.value == 0.0 and refused(rollout):
        return Outcome.REFUSED
    if rollout.stop_reason is StopReason.WALL_TIME:
        return Outcome.TIMEOUT
    if rollout.turns and rollout.metrics.get("cells") == 0 and not rollout.answer.strip():
        return Outcome.UNPARSED
    if rollout.stop_reason in BUDGETS:
        return Outcome.BUDGET
    readable = rollout.answer.strip() and rollout.score.answered
    return Outcome.ANSWERED if readable or rollout.score.value > 0.0 else Outcome.UNPARSED


def sub_calls_failed(rollout: Rollout) -> str | None:
    """The reason, if the rollout made sub-calls and the engine answered none of them; None otherwise."""
    reasons = [call.error for call in rollout.sub_calls]
    if not reasons or any(reason is None or OWN_FAULT.search(reason) for reason in reasons):
        return None
    return SUB_CALLS_FAILED + str(reasons[0])


def refused(rollout: Rollout) -> bool:
    """True if a filter withheld the last reply, or if the answer (else the last reply) is a refusal in words."""
    last = rollout.turns[-1] if rollout.turns else None
    if last is not None and last.finish_reason in FILTERED:
        return True
    said = rollout.answer or (last.text if last else "")
    return len(said) <= REFUSAL_CHARS and REFUSAL.match(said) is not None
