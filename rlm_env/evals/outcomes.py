"""What a rollout came to, in one word: a score alone does not tell a wrong answer from none.

Covered: the outcomes and how they are told apart. Not covered: why an engine or a budget ended it (`StopReason`).
"""

from __future__ import annotations

import re
from enum import StrEnum

from rlm_env.rollout import Rollout, StopReason


class Outcome(StrEnum):
    """What a rollout came to. Every rollout has exactly one; only `ERROR` has no score."""

    ANSWERED = "answered"
    """The policy gave an answer that could be read, right or wrong."""
    UNPARSED = "unparsed"
    """Nothing could be read: no code in any reply, no answer, or none that the scorer found in the text."""
    REFUSED = "refused"
    """The model, or its provider's filter, declined to answer."""
    TIMEOUT = "timeout"
    """The wall time of the rollout was up; what stood in the answer was scored."""
    BUDGET = "budget"
    """Another budget ended the rollout (turns, tokens, sub-calls, the length of a reply); likewise."""
    OVERFLOW = "overflow"
    """The root prompt did not fit the window; without an answer that is worth 0."""
    ERROR = "error"
    """The engine, the REPL or the scorer failed. Left out of every mean, shown, repeated by --resume."""


BUDGETS = (
    StopReason.MAX_TURNS,
    StopReason.ROOT_TOKENS,
    StopReason.SUB_TOKENS,
    StopReason.SUB_CALLS,
    StopReason.LENGTH,
)
FILTERED = frozenset({"content_filter", "refusal"})
"""Reasons for which providers end a reply that they or the model will not give."""
REFUSAL = re.compile(
    r"\s*(?:(?:i['’]?m|i am) sorry,?(?: but)? |sorry,? (?:but )?|unfortunately,? )?"
    r"i (?:cannot|can['’]?t|can not|won['’]?t|will not|am unable to|am not able to|['’]?m unable to) "
    r"(?:help|assist|comply|answer|provide|fulfil|do that|continue|discuss)\b",
    re.IGNORECASE,
)
REFUSAL_CHARS = 600
"""A text longer than this is an answer, whatever it begins with."""


def outcome_of(rollout: Rollout) -> Outcome:
    """The class of a rollout by how it ended; one without a score is an error, whatever it says."""
    if rollout.score is None or rollout.stop_reason in (StopReason.ERROR, StopReason.CANCELLED):
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


def refused(rollout: Rollout) -> bool:
    """Whether the last reply was withheld by a filter, or the answer (else the last reply) is a refusal in words."""
    last = rollout.turns[-1] if rollout.turns else None
    if last is not None and last.finish_reason in FILTERED:
        return True
    said = rollout.answer or (last.text if last else "")
    return len(said) <= REFUSAL_CHARS and REFUSAL.match(said) is not None
