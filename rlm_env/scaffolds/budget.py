"""The budget of a whole rollout: what it may use, what it has used, and which limit it ran into."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rlm_env.messages import Usage
from rlm_env.rollout import StopReason
from rlm_env.scaffolds.config import RLMConfig


@dataclass(slots=True)
class Budget:
    """Limits of one rollout (None: unlimited) and the running totals. Lives on the host, out of the model's reach.

    Tokens are prompt and completion together, as the engine bills them. They are known only after a call, so one root
    call or one batch of sub-calls can exceed the limit. Sub-calls are counted before they are made, so that limit
    holds exactly; every reply of a sub-LLM with tools counts as one.
    """

    max_turns: int
    max_root_tokens: int | None = None
    max_sub_tokens: int | None = None
    max_sub_calls: int | None = None
    max_seconds: float | None = None
    turns: int = 0
    sub_calls: int = 0
    root: Usage = field(default_factory=Usage)
    sub: Usage = field(default_factory=Usage)
    refused: StopReason | None = None
    """The limit because of which a sub-call was refused, once one was."""
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, config: RLMConfig) -> Budget:
        """The limits of a configuration; the time starts now."""
        return cls(
            config.max_turns, config.max_root_tokens, config.max_sub_tokens, config.max_sub_calls, config.max_seconds
        )

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the wall time is used up, negative after that; None where it is unlimited."""
        return None if self.max_seconds is None else self.max_seconds - (time.monotonic() - self.started)

    def grant_sub_calls(self, wanted: int) -> int:
        """How many of `wanted` sub-calls may be made now; they are counted as made."""
        limit = self.sub_limit()
        if limit is not None:
            self.refused = limit
            return 0
        granted = wanted if self.max_sub_calls is None else min(wanted, self.max_sub_calls - self.sub_calls)
        if granted < wanted:
            self.refused = StopReason.SUB_CALLS
        self.sub_calls += granted
        return granted

    def sub_limit(self) -> StopReason | None:
        """The limit that forbids a further sub-call, if any."""
        if self.max_sub_calls is not None and self.sub_calls >= self.max_sub_calls:
            return StopReason.SUB_CALLS
        if self.max_sub_tokens is not None and _total(self.sub) >= self.max_sub_tokens:
            return StopReason.SUB_TOKENS
        if (left := self.seconds_left) is not None and left <= 0:
            return StopReason.WALL_TIME
        return None

    def exhausted(self) -> StopReason | None:
        """The limit that forbids a further root turn, if any.

        Sub-call limits end a rollout when a call was refused for them, not when the last one was merely used up.
        """
        if (left := self.seconds_left) is not None and left <= 0:
            return StopReason.WALL_TIME
        if self.refused is not None:
            return self.refused
        if self.max_root_tokens is not None and _total(self.root) >= self.max_root_tokens:
            return StopReason.ROOT_TOKENS
        if self.turns >= self.max_turns:
            return StopReason.MAX_TURNS
        return None


def _total(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
