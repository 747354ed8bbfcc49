"""Makes a conversation valid for strict endpoints before it is sent. The record keeps what the model said.

Tool calls get unique ids that their results carry too, arguments that are JSON objects, and names without control
tokens; empty replies get a text; and what an endpoint wants back of its own replies goes back.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_env.llm.base import ToolSchema
from rlm_env.messages import AssistantMessage, Message

SENT_FIELDS = ("role", "content", "name")
AS_IT_CAME = (*SENT_FIELDS, "reasoning_content", "tool_calls", "tool_call_id")
EMPTY_REPLY = "(empty reply)"
EMPTY_MESSAGE = "(empty)"
NO_RESULT = "(no result)"
NO_NAME = "unnamed_tool"
NO_REASONING = " "
"""For replies without reasoning, where an endpoint demands some. Some take an empty text for a missing one."""


@dataclass(slots=True)
class HistoryRules:
    """What an endpoint takes. All but `verbatim`, `reasoning` and `returned` is changed by its refusals only."""

    verbatim: bool = False
    """Replies go back as they came, reasoning included, and nothing is made valid: for an endpoint that knows a
    conversation by its messages."""
    reasoning: bool = False
    """The reasoning of every reply goes back, unless it is refused."""
    tools: bool = True
    """Tool calls and their results; otherwise they are sent as text."""
    system: bool = True
    """Messages of the role `system`; otherwise they stand at the head of the next user message."""
    repeated_roles: bool = True
    """Two messages of one role in a row; otherwise they are joined."""
    empty_text: bool = True
    """Messages without text beside the replies, which are never sent empty."""
    several_calls: bool = True
    """Several tool calls in one reply; otherwise each is sent as a reply of its own, with its result behind it."""
    any_ids: bool = True
    """Ids of tool calls as the model wrote them; otherwise all are of nine letters and digits."""
    returned: set[str] = field(default_factory=set)
    """Fields of its own that the endpoint has put into replies and their tool calls. They go back with tool calls."""
    unwanted: set[str] = field(default_factory=set)
    """Fields that it refuses in messages."""
    demanded: str | None = None
    """The field of the reasoning that it demands of every reply."""


def valid_history(
    messages: Sequence[Message], rules: HistoryRules, tools: Sequence[ToolSchema] | None = None
) -> list[Message]:
    """The messages as they are sent. `tools`: names the argument that takes text which is no JSON."""
    if rules.verbatim:
        return _encodable([{name: message[name] for name in AS_IT_CAME if name in message} for message in messages])
    found = _paired(messages, _TextArguments(tools or ()), rules)
    if not rules.tools:
        found = [_without_calls(message) for message in found]
    elif not rules.several_calls:
        found = _one_call_each(found)
    if not rules.system:
        found = _without_system(found)
    if not rules.repeated_roles:
        found = _joined_roles(found)
    for message in found:
        for name in rules.unwanted - {"role", "content"}:
            message.pop(name, None)
            for call in message.get("tool_calls", ()):
                call.pop(name, None)
                call["function"].pop(name, None)
        if _is_blank(message.get("content")):
            if message["role"] == "assistant" and not message.get("tool_calls"):
                message["content"] = EMPTY_REPLY
            elif not rules.empty_text:
                message["content"] = EMPTY_MESSAGE
    return _encodable(found)


def object_text(arguments: Any, text_argument: str = "arguments") -> str:
    """A tool call's arguments as the text of a JSON object. Words that are none become its `text_argument`."""
    value = arguments
    if isinstance(value, str):
        if not value.strip():
            return "{}"
        try:
            value = json.loads(value, parse_constant=_refuse_constant)
            if isinstance(value, str):  # encoded twice
                value = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return json.dumps({text_argument: arguments}, ensure_ascii=False)
        if isinstance(value, dict):
            return arguments if arguments.lstrip().startswith("{") else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return "{}"
    words = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return json.dumps({text_argument: words}, ensure_ascii=False)


def valid_name(name: Any) -> str:
    """A tool's name of the characters that endpoints take: without control tokens, what follows them, and namespace."""
    text = re.sub(r"^(?:\s*<\|[^|>]*\|>)+", "", name) if isinstance(name, str) else ""
    plain = re.split(r"<|\|>", text)[0].strip().removeprefix("functions.")
    return re.sub(r"[^a-zA-Z0-9_-]", "_", plain)[:64] or NO_NAME


class _TextArguments:
    """Name of a tool -> the argument that holds its text."""

    def __init__(self, tools: Sequence[ToolSchema]) -> None:
        self._names: dict[str, str] = {}
        for tool in tools:
            function = tool.get("function") or {}
            parameters = function.get("parameters") or {}
            properties, required = parameters.get("properties") or {}, parameters.get("required") or ()
            self._names[str(function.get("name"))] = next(iter([*required, *properties]), "arguments")

    def of(self, tool: str) -> str:
        return self._names.get(tool, "code" if tool == "python_repl" else "arguments")


class _Ids:
    """Hands out ids that are unique in a conversation: the model's own where they are, else new ones of nine letters
    and digits, which is the form that the strictest endpoint takes."""

    def __init__(self, *, any_form: bool) -> None:
        self._any_form = any_form
        self._used: set[str] = set()
        self._count = 0

    def of(self, raw: Any) -> str:
        wanted = raw.strip() if isinstance(raw, str) and self._any_form else ""
        while not wanted or wanted in self._used:
            self._count += 1
            wanted = f"call{self._count:05d}"
        self._used.add(wanted)
        return wanted


def _paired(messages: Sequence[Message], texts: _TextArguments, rules: HistoryRules) -> list[Message]:
    """Copies in which every tool call has a result right behind it, and every result a call before it."""
    found: list[Message] = []
    ids = _Ids(any_form=rules.any_ids)
    open_calls: dict[str, deque[str]] = {}
    """Id that the model wrote -> ids that were sent for it and wait for their result."""

    def close() -> None:
        for waiting in open_calls.values():
            found.extend({"role": "tool", "tool_call_id": sent, "content": NO_RESULT} for sent in waiting)
        open_calls.clear()

    for message in messages:
        if message["role"] == "tool":
            waiting = open_calls.get(str(message.get("tool_call_id") or ""))
            if waiting is None and len(open_calls) == 1 and not message.get("tool_call_id"):
                waiting = next(iter(open_calls.values()))
            if not waiting:  # nobody called for it
                found.append({"role": "user", "content": message.get("content") or ""})
                continue
            sent = {name: message[name] for name in SENT_FIELDS if message.get(name) is not None}
            if "name" in sent:
                sent["name"] = valid_name(sent["name"])
            found.append({"content": "", **sent, "tool_call_id": waiting.popleft()})
            continue
        close()
        sent = {name: message[name] for name in SENT_FIELDS if name in message and message[name] is not None}
        sent.setdefault("content", "")
        if message["role"] == "assistant":
            calls = []
            for call in message.get("tool_calls") or ():
                calls.append(_sent_call(call, ids, texts, rules))
                open_calls.setdefault(str(call.get("id") or ""), deque()).append(calls[-1]["id"])
            if calls:
                sent["tool_calls"] = calls
            sent |= _fields_back(message, rules, bool(calls))
        found.append(sent)
    close()
    return found


def _sent_call(call: Mapping[str, Any], ids: _Ids, texts: _TextArguments, rules: HistoryRules) -> dict[str, Any]:
    """A tool call in the shape and with the fields that are sent."""
    function = call.get("function") or {}
    name = valid_name(function.get("name"))
    sent: dict[str, Any] = {"name": name, "arguments": object_text(function.get("arguments"), texts.of(name))}
    sent |= {key: value for key, value in function.items() if key in rules.returned and key not in sent}
    whole = {"id": ids.of(call.get("id")), "type": "function", "function": sent}
    return whole | {key: value for key, value in call.items() if key in rules.returned and key not in whole}


def _fields_back(message: Message, rules: HistoryRules, has_calls: bool) -> dict[str, Any]:
    """The fields of its own reply that an endpoint gets back."""
    fields: dict[str, Any] = {}
    reasoning = message.get("reasoning_content")
    if has_calls:
        if isinstance(message, AssistantMessage):
            fields = {name: v for name, v in message.completion.returned_fields.items() if name in rules.returned}
        if reasoning and not fields:
            name = next((name for name in ("reasoning_content", "reasoning") if name in rules.returned), None)
            fields = {name: reasoning} if name else {}
    if rules.reasoning and reasoning and not fields.keys() & {"reasoning", "reasoning_content"}:
        fields["reasoning_content"] = reasoning
    if rules.demanded and not fields.get(rules.demanded):
        fields[rules.demanded] = reasoning or NO_REASONING
    return fields


def _without_calls(message: Message) -> Message:
    """Calls and results as text, for an endpoint that takes no tools."""
    if message["role"] == "tool":
        name = message.get("name")
        text = message["content"]
        return {"role": "user", "content": f"[{name}]\n{text}" if name else text}
    if not message.get("tool_calls"):
        return message
    blocks = []
    for call in message["tool_calls"]:
        arguments = json.loads(call["function"]["arguments"])
        if arguments.keys() == {"code"} and isinstance(arguments["code"], str):
            blocks.append(f"```repl\n{arguments['code']}\n```")
        else:
            written = {"name": call["function"]["name"], "arguments": arguments}
            blocks.append(f"```tool\n{json.dumps(written, ensure_ascii=False)}\n```")
    text = message["content"]
    rest = {key: value for key, value in message.items() if key not in ("tool_calls", "content")}
    return {**rest, "content": "\n\n".join([*([text] if text else []), *blocks])}


def _one_call_each(messages: list[Message]) -> list[Message]:
    """Replies with several calls as several replies; text and other fields stay with the first."""
    found: list[Message] = []
    results = {message["tool_call_id"]: message for message in messages if message["role"] == "tool"}
    for message in messages:
        calls = message.get("tool_calls") or ()
        if len(calls) > 1:
            for number, call in enumerate(calls):
                head = message if number == 0 else {"role": "assistant", "content": ""}
                found += [{**head, "tool_calls": [call]}, results.pop(call["id"])]
        elif message["role"] != "tool" or message["tool_call_id"] in results:
            found.append(message)
    return found


def _without_system(messages: list[Message]) -> list[Message]:
    """System messages as part of the next user message."""
    found: list[Message] = []
    heads: list[str] = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            heads.append(str(message["content"]))
        elif heads and message["role"] == "user":
            found.append({**message, "content": _with_head("\n\n".join(heads), message["content"])})
            heads = []
        else:
            found.append(message)
    return [*found, {"role": "user", "content": "\n\n".join(heads)}] if heads else found


def _with_head(head: str, content: Any) -> Any:
    return [{"type": "text", "text": head}, *content] if isinstance(content, list) else f"{head}\n\n{content}"


def _joined_roles(messages: list[Message]) -> list[Message]:
    """Messages of one role in a row joined into one."""
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if (
            last is not None
            and last["role"] == message["role"] in ("user", "assistant", "system")
            and isinstance(last["content"], str)
            and not last.get("tool_calls")
        ):
            found[-1] = {**last, **message, "content": _with_head(last["content"], message["content"])}
        else:
            found.append(message)
    return found


def _is_blank(content: Any) -> bool:
    return not content.strip() if isinstance(content, str) else not content


def _encodable(value: Any) -> Any:
    """A copy without lone surrogates, which a REPL can print and no JSON parser of a server has to take."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
