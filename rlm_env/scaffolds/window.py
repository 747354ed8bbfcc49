"""How much of a text fits into one prompt: counted where the engine can, else learned from replies and refusals."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable

from rlm_env.llm.base import LLM, ContextOverflow, Sampling
from rlm_env.messages import Message

CHARS_PER_TOKEN = 3.0
"""A cautious guess, until the token count of a prompt is known."""
MOST_CHARS_PER_TOKEN = 16
"""A prompt that could fit only with more than this on average is not counted; only texts of blanks have more."""
SHORTEST = 32
"""Characters below which a piece is not worth a call, because the rest of the prompt fills the window."""
THREAD_CHARS = 50_000
"""Prompts of more characters are counted in a thread, so that the event loop is not blocked."""


class Window:
    """The room for prompts of one engine with one sampling. Learns from every answer and every refusal.

    `tokens`: prompt and completion together; None: the engine's window, or where it is unknown no limit until a prompt
    is refused. At most a quarter of it is kept free for the completion.
    """

    def __init__(self, llm: LLM, sampling: Sampling, tokens: int | None = None) -> None:
        self._llm = llm
        self._wanted = sampling.max_tokens
        self._tokens = tokens if llm.context_window is None or tokens is None else min(tokens, llm.context_window)
        self._chars_per_token = CHARS_PER_TOKEN
        self._most_chars: int | None = None

    @property
    def tokens(self) -> int | None:
        """Tokens of prompt and completion together; None where that is unknown."""
        return self._tokens or self._llm.context_window

    @property
    def room(self) -> int | None:
        """The largest prompt, in tokens; None where no limit is known."""
        return None if self.tokens is None else self.tokens - min(self._wanted, self.tokens // 4)

    def may_fit(self, chars: int) -> bool:
        """False where a prompt of so many characters cannot fit, so that it need not be built."""
        if self._most_chars is not None and chars > self._most_chars:
            return False
        return self.room is None or chars <= MOST_CHARS_PER_TOKEN * self.room

    async def fits(self, messages: list[Message]) -> bool:
        """True where a prompt fits, as far as can be known before it is sent."""
        if not self.may_fit(_chars(messages)):
            return False
        return self.room is None or await self.count(messages) <= self.room

    async def piece(self, text: str, start: int, prompt: Callable[[str], list[Message]]) -> int:
        """How many characters of `text` from `start` on fit into `prompt`; 0 where hardly any do.

        The piece ends after a line break, or else a blank, where there is one in its last quarter.
        """
        low, high = 0, len(text) - start + 1  # `low` fits, `high` does not
        end = min(high - 1, self._guess(prompt("")))
        while high - low > 1 + low // 50:
            if await self.fits(prompt(text[start : start + end])):
                low = end
            else:
                high = end
            end = min(2 * low, (low + high) // 2) if low else high // 2
            end = max(end, low + 1)
        if low < min(SHORTEST, len(text) - start):
            return 0
        if start + low == len(text):
            return low
        last_quarter = (start + low * 3 // 4, start + low)
        end = text.rfind("\n", *last_quarter) + 1 or text.rfind(" ", *last_quarter) + 1
        return end - start if end else low

    def answered(self, messages: list[Message], prompt_tokens: int) -> None:
        """Notes the token count of a prompt that was answered."""
        if prompt_tokens:
            self._chars_per_token = max(0.25, 0.95 * _chars(messages) / prompt_tokens)

    def refused(self, messages: list[Message], error: ContextOverflow) -> None:
        """Notes that a prompt was too long: the next one will be shorter."""
        size = _chars(messages)
        if error.window is not None and self._tokens is None:
            self._tokens = error.window
        if error.prompt_tokens is not None:
            self.answered(messages, error.prompt_tokens)
        sizes_known = error.prompt_tokens is not None and self.tokens is not None
        self._most_chars = size * 9 // 10 if sizes_known else size // 2

    def _guess(self, empty: list[Message]) -> int:
        """Characters of text that should fit, to begin the search with."""
        known = [self._most_chars, None if self.room is None else int(self.room * self._chars_per_token)]
        return max(1, min((chars for chars in known if chars is not None), default=sys.maxsize) - _chars(empty))

    async def count(self, messages: list[Message]) -> int:
        """Tokens of a prompt, counted where the engine can, else estimated."""
        size = _chars(messages)
        if size > THREAD_CHARS:
            counted = await asyncio.to_thread(self._llm.count_tokens, messages)
        else:
            counted = self._llm.count_tokens(messages)
        return math.ceil(size / self._chars_per_token) if counted is None else counted


def _chars(messages: list[Message]) -> int:
    return sum(len(message["content"]) for message in messages)
