"""One batch of prompts while its frames arrive. Every byte is charged before it is kept."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from rlm_env.repl.bounds import TEXT_COST, held_bytes, held_texts
from rlm_env.repl.host.prompt_budget import Claim
from rlm_env.repl.host.prompt_json import Prompt, parse_prompt
from rlm_env.repl.wire import CHUNK, JSON_WEIGHT, ProtocolError

_TEXTS = {str}
_SHORT = CHUNK // 8
"""A piece of fewer characters costs something besides them. An honest child sends one of them in a text, at its end."""
_WIDE = sys.getsizeof("\xe9") - 2
"""Bytes of a str that is not ASCII, besides its characters and one more."""


class IncomingBatch:
    """A batch of which all or some frames have arrived. `add` and `add_piece` raise ProtocolError."""

    def __init__(self, number: int, total: int) -> None:
        self.number = number
        self.total = total
        self.items: list[Prompt] = []
        self.size = 0
        """Bytes that are kept of it."""
        self.claim: Claim | None = None
        """The room that it has or waits for."""
        self._texts: deque[str] = deque()
        """Long texts that came before the prompts which refer to them, in their order."""
        self._pieces: list[str] = []
        self._length, self._width = 0, 1
        """Characters of the text in `_pieces`, and bytes that each of them takes."""

    @property
    def complete(self) -> bool:
        return len(self.items) == self.total

    def add_piece(self, text: str, last: bool) -> None:
        """The next part of a long text; with the `last` one it is whole."""
        if not text:
            raise ProtocolError("an empty piece of a text")
        width = 1 if text.isascii() else (sys.getsizeof(text) - _WIDE) // (len(text) + 1)
        before = self._length * self._width
        self._length += len(text)
        self._width = max(self._width, width)  # the widest character decides for the text as a whole
        self._charge(self._length * self._width - before + (TEXT_COST // 2 if len(text) < _SHORT else 0))
        self._pieces.append(text)
        if last:
            self._texts.append("".join(self._pieces))
            self._pieces = []
            self._length, self._width = 0, 1

    def add(self, total: int, start: int, items: list[Any]) -> None:
        """The next prompts: a text, the JSON of a dict, or 0 for the next of the texts that came in pieces."""
        if start != len(self.items) or total != self.total or start + len(items) > total or not items:
            raise ProtocolError("the frames of a batch do not fit together")
        if set(map(type, items)) == _TEXTS:
            self._charge(held_texts(items))
            self.items += items
            return
        if sum(len(item) for item in items if type(item) is bytes) * JSON_WEIGHT > CHUNK:
            raise ProtocolError("too much JSON in one frame")
        for item in items:
            kind = type(item)
            if kind is str:
                self._charge(held_bytes(item))
                self.items.append(item)
            elif kind is bytes:
                self._charge(held_bytes(item))
                self.items.append(parse_prompt(item, self._take_text))
            elif kind is int and item == 0:
                self.items.append(self._take_text())
            else:
                raise ProtocolError("a batch's items are not prompts")

    def _take_text(self) -> str:
        """A text is used once, so that its charge holds."""
        if not self._texts:
            raise ProtocolError("a prompt refers to a text that is not there")
        return self._texts.popleft()

    def _charge(self, size: int) -> None:
        self.size += size
        if self.claim is not None and self.size > self.claim.size:
            raise ProtocolError("a batch is larger than was announced")
