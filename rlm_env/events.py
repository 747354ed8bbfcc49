"""What happens in a rollout, while it happens: typed events for displays, viewers and callbacks.

A scaffold that was given `on_event` calls it on the event loop, in order, and waits for it: it should only take note.
Everything in an event is in the record of the rollout too. Objects of the record are the live ones: read, not kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, SubCall, Turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a rollout."""

    rollout_id: str
    seconds: float
    """Since the rollout began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnReplied(Event):
    """The root LLM has replied."""

    index: int
    """Of the turn, from 0."""
    turn: Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeStarted(Event):
    """A cell of a reply begins to run."""

    index: int
    """Of the turn."""
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeEnded(Event):
    """A cell has ended."""

    index: int
    """Of the turn."""
    output: str
    """What the root LLM is told about it, shortened to its limit."""
    error: str | None
    """The short traceback, if it failed."""
    code_seconds: float
    """Without the time in which it waited for sub-LLMs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubCallStarted(Event):
    """A sub-LLM is asked."""

    call: SubCall


@dataclass(frozen=True, slots=True, kw_only=True)
class SubCallEnded(Event):
    """A sub-LLM has answered (`call.text`) or failed (`call.error`)."""

    call: SubCall


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpent(Event):
    """The totals after a turn or a batch of sub-calls."""

    turns: int
    sub_calls: int
    root: Usage
    sub: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerChanged(Event):
    """`answer` in the REPL holds something else, or is ready now."""

    content: str
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEnded(Event):
    """The last event of a rollout, also of one that was cancelled or whose engine died."""

    rollout: Rollout


OnEvent = Callable[[Event], None]


@dataclass(slots=True)
class Emitter:
    """Hands the events of one rollout to its listener. False where nobody listens, so that no event is made."""

    rollout_id: str
    listener: OnEvent | None = None
    started: float = field(default_factory=time.monotonic)

    def __bool__(self) -> bool:
        return self.listener is not None

    def emit(self, kind: type[Event], **fields: object) -> None:
        """Makes an event and hands it over. A listener that raises is logged and not called again: the rollout is paid
        for, its display is not."""
        if self.listener is None:
            return
        seconds = time.monotonic() - self.started
        try:
            self.listener(kind(rollout_id=self.rollout_id, seconds=seconds, **fields))
        except Exception:
            self.listener = None
            log.exception("the listener of rollout %s raised; it gets no further events", self.rollout_id)
