"""Joins the pieces of a streamed chat completion into the reply that the endpoint would have sent at once."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

LINE_BYTES = 64 << 20
"""Upper limit of a line without an end."""


class StreamBroken(Exception):
    """A stream that ended before the reply was complete, or bytes that are not an event stream."""


async def join_stream(pieces: AsyncIterator[bytes]) -> dict[str, Any]:
    """The whole reply from the bytes of a server-sent event stream. An error that comes in the stream stands in the
    reply as `error`. Raises StreamBroken."""
    joined = JoinedReply()
    events = EventParser()
    async for piece in pieces:
        for data in events.feed(piece):
            joined.add(data)
        if events.done:
            break
    else:
        for data in events.end():
            joined.add(data)
    return joined.reply(ended=events.done)


class EventParser:
    """Splits the bytes of an event stream into the data of its events: any line ends, comments, data of several
    lines, a last event without an end."""

    def __init__(self) -> None:
        self.done = False
        """The end mark has come; what follows is left out."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._rest = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[str]:
        """The events that are complete with these further bytes."""
        text = self._rest + self._decoder.decode(piece)
        # A carriage return at the end may be the first half of a line end.
        held = text.endswith("\r")
        lines = (text[:-1] if held else text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + ("\r" if held else "")
        if len(self._rest) > LINE_BYTES:
            raise StreamBroken("the stream has a line without an end")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[str]:
        """The event that no empty line has ended."""
        yield from self._line(self._rest.strip("\r"))
        yield from self._line("")

    def _line(self, line: str) -> Iterator[str]:
        if self.done:
            return
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
            if not _is_whole("\n".join(self._data)):
                return
            line = ""  # most servers send an event a line, some forget the empty line after it
        if line or not self._data:
            return
        data, self._data = "\n".join(self._data).strip(), []
        if data == "[DONE]":
            self.done = True
        elif data:
            yield data


def is_error(chunk: Mapping[str, Any]) -> bool:
    """True for a chunk that is itself an error, in place of one that holds it under `error`."""
    if "error" in chunk or "choices" in chunk:
        return False
    return chunk.get("object") == "error" or ("message" in chunk and ("code" in chunk or "type" in chunk))


class JoinedReply:
    """A chat completion that grows by its chunks."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._calls: list[dict[str, Any]] = []
        self._choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        self._begun = False

    def add(self, data: str) -> None:
        """Raises StreamBroken for what is no JSON object."""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise StreamBroken(f"the stream holds what is no JSON: {data[:80]!r}") from None
        if not isinstance(chunk, dict):
            raise StreamBroken("the stream holds what is no JSON object")
        if is_error(chunk):
            chunk = {"error": chunk}
        for name, value in chunk.items():
            if name != "choices" and value is not None:
                self._head[name] = value  # of `usage`, the last one counts
        for choice in chunk.get("choices") or ():
            if isinstance(choice, Mapping) and not choice.get("index"):
                self._add_choice(choice)

    def reply(self, *, ended: bool) -> dict[str, Any]:
        """`ended`: the stream has come to its end mark. Raises StreamBroken if it broke off before."""
        if "error" in self._head:
            return self._head | ({"choices": [self._choice | {"message": self._message}]} if self._begun else {})
        if not self._begun:
            raise StreamBroken("the stream ended without a reply")
        if self._choice["finish_reason"] is None and not ended:
            raise StreamBroken("the stream ended before the reply did")
        if self._calls:
            self._message["tool_calls"] = self._calls
        return self._head | {"choices": [self._choice | {"message": self._message}]}

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        """Takes in the piece of a message."""
        self._begun = True
        for name, value in choice.items():
            if name not in ("delta", "message", "index") and value is not None:
                self._choice[name] = value
        whole = choice.get("message")
        if isinstance(whole, Mapping) and not choice.get("delta"):
            self._message, self._calls = {**whole}, [*(whole.get("tool_calls") or ())]
            return
        for name, value in (choice.get("delta") or {}).items():
            if name == "tool_calls":
                for call in value or ():
                    self._add_call(call)
            elif value is not None and name != "role":
                self._message[name] = _joined(self._message.get(name), value)

    def _add_call(self, delta: Mapping[str, Any]) -> None:
        """Takes in the piece of a tool call."""
        call = self._call_of(delta)
        function = call["function"]
        for name, value in (delta.get("function") or {}).items():
            if value is None or (name == "name" and value == function.get("name")):
                continue  # some servers repeat the name in every piece
            function[name] = _joined(function.get(name), value)
        for name, value in delta.items():
            if name not in ("function", "index") and value is not None:
                call[name] = value
        call["index"] = delta.get("index")

    def _call_of(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        """The call that a piece belongs to: of the same index, unless it has another id. Some servers send no index,
        or 0 for every call."""
        index, identity = delta.get("index"), delta.get("id")
        for call in reversed(self._calls):
            if identity and call.get("id") and call["id"] != identity:
                continue
            if index is None or call.get("index") is None or call["index"] == index:
                new_name = (delta.get("function") or {}).get("name")
                if index is None and not identity and new_name and call["function"].get("arguments"):
                    break  # a second whole call without index and id
                return call
        call = {"function": {}}
        self._calls.append(call)
        return call


def _joined(old: Any, new: Any) -> Any:
    if old is None:
        return new
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) or isinstance(new, list):
        parts = [*(old if isinstance(old, list) else _text_part(old))]
        for part in new if isinstance(new, list) else _text_part(new):
            _join_part(parts, part)
        return parts
    return new


def _text_part(text: Any) -> list[Any]:
    return [{"type": "text", "text": text}] if text else []


def _join_part(parts: list[Any], part: Any) -> None:
    """Appends a part, or the text of one that continues the last."""
    last = parts[-1] if parts else None
    if not (isinstance(last, dict) and isinstance(part, dict)):
        parts.append(part)
        return
    if any(last.get(name) != part.get(name) for name in ("type", "index", "id") if part.get(name) is not None):
        parts.append(part)
        return
    merged = {**last}
    for name, value in part.items():
        growing = name in ("text", "thinking", "summary", "data") and value is not None
        merged[name] = _joined(last.get(name), value) if growing else (last.get(name) if value is None else value)
    parts[-1] = merged


def _is_whole(data: str) -> bool:
    if data.strip() == "[DONE]":
        return True
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
