"""An engine among others that answer in a role: how busy it is, whether it is up, and whether it is spared for a while.

An endpoint of others that answers with errors which may pass (an overloaded proxy, a rate limit) cannot be asked
whether it is well. It rests: others are asked as long as there are any, at first for some seconds, and for longer
each time. Then one prompt is tried on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError
from rlm_env.llm.http import EndpointError, NoReply
from rlm_env.llm.retries import is_passing

FIRST_REST = 5.0
"""Seconds; the next ones are twice as long each."""
LONGEST_REST = 300.0
"""Upper limit of the seconds of a rest. An endpoint that has answered for so long begins with short ones again."""


@dataclass(eq=False, slots=True)
class Seat:
    """An engine, and what those who ask it know of it."""

    name: str
    llm: LLM
    load: int = 0
    """Prompts in flight, of all roles."""
    up: bool = True
    """Whether it is asked."""
    error: EngineUnavailable | None = None
    """Why it is not."""
    healthy: Callable[[], Awaitable[bool]] | None = None
    """Asks it whether it is well, where it has answered with an error of its own, or not in time; None: it cannot be
    asked."""
    resting: bool = False
    """It has answered with an error that may pass, and with nothing better since its rest ended."""
    rest_ends: float = 0.0
    """The time, on the clock of the event loop, at which it is tried again."""
    rest_seconds: float = 0.0
    """Length of its last rest."""

    def may_be_asked(self, now: float) -> bool:
        """False while it rests, and while it is tried afterwards."""
        return not self.resting or (now >= self.rest_ends and self.load == 0)

    def rest(self, error: LLMError, now: float) -> bool:
        """Lets it rest after an error that may pass. Returns True where it had answered before."""
        if self.resting and now < self.rest_ends:  # of a prompt that was in flight
            return False
        begins = not self.resting
        fresh = begins and now > self.rest_ends + LONGEST_REST
        longer = FIRST_REST if fresh or not self.rest_seconds else min(2 * self.rest_seconds, LONGEST_REST)
        told = error.retry_after if isinstance(error, EndpointError) else 0.0
        self.resting, self.rest_seconds, self.rest_ends = True, longer, now + max(longer, told)
        return begins

    def answered(self, now: float) -> bool:
        """Ends its resting where the rest is over. Returns True where it did."""
        ended = self.resting and now >= self.rest_ends
        self.resting &= not ended
        return ended

    def lets_down(self, error: LLMError) -> bool:
        """Whether its error is one that may pass, and it cannot be asked whether it is well."""
        if self.healthy is not None:
            return False
        return isinstance(error, NoReply) or (
            isinstance(error, EndpointError) and is_passing(error.status, error.body.words)
        )
