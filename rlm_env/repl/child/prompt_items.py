"""What the model's code may give to `llm_batch`, and the frames that it becomes.

A prompt is a str, {"prompt": str} or {"messages": [{"role": ..., "content": ...}, ...]}. The limits are the host's
(`host/batch_host.py`), which ends a REPL that goes beyond them; here each has a message for the model. A failed item
comes back as a `FailedCall`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from typing import Any, NoReturn

from rlm_env.repl.bounds import (
    JSON_CHARS,
    MAX_JSON,
    MAX_JSON_DEPTH,
    MAX_JSON_INT,
    MAX_JSON_VALUES,
    TEXT_COST,
    held_bytes,
    held_texts,
)
from rlm_env.repl.wire import CHUNK, FIELD_ROOM, chunks, item_weight, pack, pack_any, sanitize

# Kept under names of our own: a cell may set `json.dumps = None`.
_dumps, _isfinite = json.dumps, math.isfinite
_TEXTS = {str}
_LONG_JSON, _LONG_TEXT = 8 * 2**10, 64
"""From this many bytes of JSON on, texts of more characters than that travel by themselves."""


_ASCII_PIECE = 4 * CHUNK
"""Characters of a piece that takes a byte for each: as large as a frame may be, so that the host has less to join."""


class SubCallError(RuntimeError):
    """A failed sub-call was used as an answer, or a whole batch failed."""


class FailedCall:
    """Placeholder for a failed sub-call; falsy; printing it shows the reason."""

    is_failed_call = True
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<failed sub-call: {self.reason}>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason,)

    def _refuse(self, *_arguments: Any) -> NoReturn:
        raise SubCallError(f"this sub-call failed, so there is no answer: {self.reason} (test it with `if answer:`)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse
    __len__ = __iter__ = __getitem__ = __contains__ = __int__ = __float__ = __index__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse


class LongDict:
    """A dict prompt whose texts travel by themselves: in `json`, a 0 stands for each of them, in order."""

    __slots__ = ("json", "texts")

    def __init__(self, json: bytes, texts: list[str]) -> None:
        self.json = json
        self.texts = texts

    def __len__(self) -> int:
        return JSON_CHARS * len(self.json) + sum(map(len, self.texts))


Item = str | bytes | LongDict


def items_of(prompts: Any) -> list[Item]:
    """The prompts as they are sent: a str unchanged, a dict as the bytes of its JSON. TypeError or ValueError where one
    is no prompt."""
    if isinstance(prompts, (str, bytes, dict, FailedCall)):
        raise TypeError(
            f"llm_batch takes a list of prompts, not a {type(prompts).__name__}: write llm_batch([prompt])[0]"
        )
    try:
        prompts = list(prompts)
    except TypeError:
        raise TypeError(f"llm_batch takes a list of prompts, not a {type(prompts).__name__}") from None
    if set(map(type, prompts)) == _TEXTS:
        return prompts
    return [prompt if type(prompt) is str else _item(index, prompt) for index, prompt in enumerate(prompts)]


def size_of(items: list[Item]) -> int:
    """Characters that these count for."""
    size = sum(map(len, items))
    if bytes in set(map(type, items)):
        size += (JSON_CHARS - 1) * sum(len(item) for item in items if type(item) is bytes)
    return size


def frames_of(number: int, items: list[Any], size: int) -> Iterator[bytes]:
    """The frames of a batch; `size`: what `size_of` says of it."""
    kinds = set(map(type, items))
    texts_only = kinds == _TEXTS
    weight = size if texts_only else sum(map(item_weight, items))
    if LongDict not in kinds and weight + FIELD_ROOM * len(items) <= CHUNK:
        yield pack_any("batch", number, len(items), 0, *items)
        return
    if not texts_only or not all(map(str.isascii, items)):
        # Before they are measured and cut: two lone surrogates in a row can become one, wider character.
        items = [sanitize(item) if type(item) is str else item for item in items]
    room = held_texts(items) + TEXT_COST * len(items) if texts_only else sum(map(_room, items))
    yield pack("announce", number, len(items), room)
    if not texts_only or max(map(len, items)) > CHUNK:
        items = yield from _send_texts(number, items)
    for start, part in chunks(items):
        yield pack_any("batch", number, len(items), start, *part)


def _send_texts(number: int, items: list[Item]) -> Generator[bytes, None, list[str | bytes | int]]:
    """The frames of the long texts; returns the items with a 0 in the place of each."""
    short: list[str | bytes | int] = []
    for item in items:
        if type(item) is LongDict:
            short.append(item.json)
            texts = item.texts
        elif type(item) is str and len(item) > CHUNK:
            short.append(0)
            texts = [item]
        else:
            short.append(item)  # pyright: ignore[reportArgumentType]
            continue
        for text in texts:
            size = _ASCII_PIECE if text.isascii() else CHUNK
            for begin in range(0, len(text), size):
                yield pack_any("piece", number, begin + size >= len(text), text[begin : begin + size])
    return short


def _room(item: Item) -> int:
    """What the host needs to keep this item, at most."""
    if type(item) is LongDict:
        return held_bytes(item.json) + sum(held_bytes(text) + TEXT_COST for text in item.texts)
    assert not isinstance(item, LongDict)
    return held_bytes(item) + TEXT_COST


def _item(index: int, prompt: Any) -> Item:
    if isinstance(prompt, str):
        return str.__str__(prompt)
    if isinstance(prompt, FailedCall):
        raise SubCallError(f"prompt {index} is a failed sub-call: {prompt.reason}")
    where = f"llm_batch: prompt {index}"
    if not isinstance(prompt, dict):
        raise TypeError(
            f"{where} is a {type(prompt).__name__}; pass a str, a dict with 'prompt' or a dict with 'messages'"
        )
    if ("prompt" in prompt) == ("messages" in prompt):
        raise TypeError(f"{where}: a dict needs either 'prompt' (a str) or 'messages' (a list of dicts)")
    if "prompt" in prompt and not isinstance(prompt["prompt"], str):
        raise TypeError(f"{where}['prompt'] is a {type(prompt['prompt']).__name__}, it must be a str")
    if "messages" in prompt:
        messages = prompt["messages"]
        if not isinstance(messages, (list, tuple)) or not messages or not all(isinstance(m, dict) for m in messages):
            raise TypeError(f"{where}['messages'] must be a list of dicts with 'role' and 'content'")
    if _check_json(prompt, where, 0) > MAX_JSON_VALUES:
        raise ValueError(f"{where} has more than {MAX_JSON_VALUES:,} values; send fewer messages")
    if any(type(message.get("content")) is int for message in prompt.get("messages", ())):
        raise TypeError(f"{where}['messages'] has a content that is an int; it must be a str")
    data = _to_json(prompt)
    if len(data) <= _LONG_JSON:
        return data
    texts: list[str] = []
    lifted = _lift_texts(prompt, texts)
    data = _to_json(lifted)
    if len(data) > MAX_JSON:
        raise ValueError(
            f"{where} is {len(data):,} bytes of JSON without its texts; the limit for a dict is {MAX_JSON:,}"
        )
    return LongDict(data, texts)


def _to_json(value: Any) -> bytes:
    return sanitize(_dumps(value, ensure_ascii=False, allow_nan=False)).encode()


def _lift_texts(prompt: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """`prompt` with a 0 for its prompt, or for each long content of its messages; those are added to `texts`."""

    def lift(value: Any) -> Any:
        if isinstance(value, str) and len(value) > _LONG_TEXT:
            texts.append(sanitize(str.__str__(value)))
            return 0
        return value

    if "prompt" in prompt:
        return {**prompt, "prompt": lift(prompt["prompt"])}
    messages = [
        {**message, "content": lift(message["content"])} if "content" in message else message
        for message in prompt["messages"]
    ]
    return {**prompt, "messages": messages}


def _check_json(value: Any, where: str, depth: int) -> int:
    """The number of values in it. TypeError for one that JSON does not have."""
    if depth > MAX_JSON_DEPTH:
        raise TypeError(f"{where} is nested more than {MAX_JSON_DEPTH} deep")
    if value is None or isinstance(value, (str, bool)):
        return 1
    if isinstance(value, int):
        if not -MAX_JSON_INT < value < MAX_JSON_INT:
            raise TypeError(f"{where} is an integer of more than 64 bits")
        return 1
    if isinstance(value, float):
        if not _isfinite(value):
            raise TypeError(f"{where} is {value}, which JSON cannot say")
        return 1
    if isinstance(value, (list, tuple)):
        return 1 + sum(_check_json(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value))
    if not isinstance(value, dict):
        raise TypeError(f"{where} is a {type(value).__name__}; only JSON-like values can be sent")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{where} has a key of type {type(key).__name__}; keys must be str")
    return 1 + sum(_check_json(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items())
