"""A dict prompt of a REPL, parsed within bounds: of size before it is parsed, of depth and of values after.

The child has checked the same (`child/prompt_items.py`), with messages for the model; so what is odd here was forged,
and is a ProtocolError. What comes out can be stored as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rlm_env.repl.bounds import MAX_JSON, MAX_JSON_DEPTH, MAX_JSON_INT, MAX_JSON_VALUES
from rlm_env.repl.wire import ProtocolError, sanitize

Prompt = str | dict[str, Any]


def parse_prompt(data: bytes, take_text: Callable[[], str]) -> dict[str, Any]:
    """{"prompt": str} or {"messages": [...]} with whatever else it has. A 0 stands for a text that came before it, in
    pieces; `take_text` gives the next of them."""
    if len(data) > MAX_JSON:
        raise ProtocolError(f"a prompt of {len(data)} bytes of JSON")
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ProtocolError("a prompt is not JSON") from None
    if type(value) is not dict:
        raise ProtocolError("a prompt has neither 'prompt' nor 'messages'")
    value = _Plain().copy(value, 0)
    if type(value.get("prompt")) is int:
        value["prompt"] = take_text()
    messages = value.get("messages")
    if type(messages) is list:
        for message in messages:
            if type(message) is not dict:
                raise ProtocolError("a message is not a dict")
            if type(message.get("content")) is int:
                message["content"] = take_text()
    elif type(value.get("prompt")) is not str:
        raise ProtocolError("a prompt has neither 'prompt' nor 'messages'")
    return value


def _refuse(name: str) -> None:
    raise ValueError(name)


class _Plain:
    """Copies a value, with texts that can be encoded. ProtocolError where it cannot be stored."""

    def __init__(self) -> None:
        self._left = MAX_JSON_VALUES

    def copy(self, value: Any, depth: int) -> Any:
        """The copy of a value that lies `depth` deep."""
        self._left -= 1
        if self._left < 0 or depth > MAX_JSON_DEPTH:
            raise ProtocolError("a prompt of too many values, or nested too deeply")
        kind = type(value)
        if kind is str:
            return sanitize(value)
        if kind is dict:
            return {sanitize(key): self.copy(item, depth + 1) for key, item in value.items()}
        if kind is list:
            return [self.copy(item, depth + 1) for item in value]
        if kind is int and not -MAX_JSON_INT < value < MAX_JSON_INT:
            raise ProtocolError("a prompt has an integer of more than 64 bits")
        if kind is float and value - value != 0.0:
            raise ProtocolError("a prompt has a number that JSON cannot say")
        return value
