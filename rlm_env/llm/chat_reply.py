"""Reads a chat completion in the shapes that endpoints send: text or parts, nulls, odd numbers, reasoning.

What a provider withheld is an LLMError, never an answer. Errors in place of a completion are in `error_body.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlm_env.llm.base import LLMError
from rlm_env.messages import UNREADABLE_CALL, Completion, Usage

FINISH_REASONS = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "complete": "stop",
    "stop_token": "stop",
}
"""The names of other APIs, as gateways pass them on."""
WITHHELD = (
    *("content_filter", "safety", "recitation", "prohibited", "blocklist", "sensitive", "spii", "guardrail"),
    *("error_toxic", "image_safety"),
)
"""Beginnings of finish reasons of a reply that was withheld."""
WITHHELD_IF_EMPTY = frozenset({"other", "language", "finish_reason_unspecified"})
"""Finish reasons that say nothing; without a text the reply was withheld too."""
ENDED = frozenset({"stop", "tool_calls"})
"""Finish reasons of a reply that the model has ended, if only to say nothing."""
MALFORMED = ("malformed", "unexpected_tool_call", "too_many_tool_calls", "tool_call_error")
"""Beginnings of finish reasons of a reply whose tool call the provider could not read."""
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
OWN_FIELDS = frozenset(
    {"role", "content", "tool_calls", "function_call", "refusal", "audio", "annotations", "index", "name", "images"}
)
"""Fields of a message that are not sent back as they came."""


def read_completion(reply: Any) -> Completion:
    """The completion in a reply. Raises LLMError for a reply that is none, with the usage that it was charged for."""
    usage = read_usage(reply.get("usage") if isinstance(reply, Mapping) else None)
    try:
        completion = _completion(reply, usage)
    except LLMError as error:
        error.usage = usage
        raise
    except (LookupError, TypeError, AttributeError, ValueError):
        error = LLMError("a completion of unknown shape")
        error.usage = usage
        raise error from None
    return completion


def read_usage(raw: Any) -> Usage:
    """Token counts, never negative. Cached tokens are part of the prompt, also where an endpoint counts them apart."""
    if not isinstance(raw, Mapping):
        return Usage(calls=1)
    details = raw.get("prompt_tokens_details") or raw.get("input_tokens_details") or {}
    cached = _first_count(details if isinstance(details, Mapping) else {}, "cached_tokens") or _first_count(
        raw, "cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens"
    )
    prompt = _first_count(raw, "prompt_tokens")
    if not prompt and raw.get("input_tokens") is not None:
        prompt = _first_count(raw, "input_tokens") + sum(
            _count(raw.get(name)) for name in ("cache_read_input_tokens", "cache_creation_input_tokens")
        )
    if cached > prompt:
        prompt += cached
    completion = _first_count(raw, "completion_tokens", "output_tokens")
    apart = raw.get("completion_tokens_details") or {}
    thought = _count(apart.get("reasoning_tokens")) if isinstance(apart, Mapping) else 0
    total = _count(raw.get("total_tokens"))
    if thought and total == prompt + completion + thought:  # reasoning is paid, but was counted apart
        completion += thought
    return Usage(prompt, completion, cached, calls=1)


def _completion(reply: Any, usage: Usage) -> Completion:
    """The completion in a reply whose usage is known; raises LLMError for a withheld or empty one."""
    choice = reply["choices"][0]
    message = choice.get("message") or choice.get("delta")
    if message is None and isinstance(choice.get("text"), str):  # of the older completions API
        message = {"content": choice["text"]}
    if not isinstance(message, Mapping):
        raise TypeError
    if message.get("tool_calls") is None and isinstance(message.get("function_call"), Mapping):
        message = {**message, "tool_calls": [{"function": message["function_call"]}]}
    text, thoughts = _text_and_thoughts(message.get("content"))
    refusal = message.get("refusal")
    reason = _finish_reason(choice.get("finish_reason"))
    native = _finish_reason(choice.get("native_finish_reason"))  # a gateway may call a withheld reply finished
    if native is not None and (native.startswith(WITHHELD) or native == "refusal"):
        reason = native
    calls = [_tool_call(call) for call in _listed(message.get("tool_calls"))]
    empty = not (text or refusal or calls)
    if reason is not None and (reason.startswith(WITHHELD) or (empty and reason in WITHHELD_IF_EMPTY)):
        words = f": {' '.join(str(refusal or text).split())[:300]}" if refusal or text else ""
        raise LLMError(f"the provider withheld the reply ({reason}){words}")
    reasoning = next((read for name in REASONING_FIELDS if (read := _plain(message.get(name)))), None)
    reasoning = reasoning or thoughts or _plain(message.get("reasoning_details")) or None
    malformed = reason is not None and any(part.strip().startswith(MALFORMED) for part in reason.split(":"))
    nothing = empty and not (reasoning or usage.completion_tokens)
    said_empty = message.get("content") is not None and (reason in ENDED or malformed)
    if nothing and not said_empty and reason not in ("length", "refusal"):
        raise LLMError(f"the provider sent an empty reply (finish_reason {reason!r})")
    if malformed:
        reason = UNREADABLE_CALL
    returned = {name: value for name, value in message.items() if value is not None and name not in OWN_FIELDS}
    return Completion(
        text=text or str(refusal or ""),
        tool_calls=calls,
        reasoning=reasoning,
        finish_reason="refusal" if refusal else reason,
        usage=usage,
        returned_fields=returned,
    )


def _finish_reason(raw: Any) -> str | None:
    """The reason in the words of the OpenAI API."""
    if raw is None:
        return None
    reason = str(raw).strip().lower()
    return FINISH_REASONS.get(reason, reason)


def _listed(calls: Any) -> list[Mapping[str, Any]]:
    """The tool calls of a message: a list, or a single one."""
    calls = [calls] if isinstance(calls, Mapping) else calls
    return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """In the OpenAI shape, with the provider's own fields kept."""
    function = call.get("function") or call.get("custom")
    function = function if isinstance(function, Mapping) else call
    arguments = function.get("arguments")
    if arguments is None:
        arguments = function.get("input", function.get("parameters"))
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    own = {name: value for name, value in function.items() if value is not None and name not in ("name", "arguments")}
    read = {"name": str(function.get("name") or ""), "arguments": arguments, **(own if function is not call else {})}
    known = ("id", "type", "function", "custom", "index", "name", "arguments", "input", "parameters")
    extra = {name: value for name, value in call.items() if value is not None and name not in known}
    return {"id": str(call.get("id") or ""), "type": "function", "function": read, **extra}


def _text_and_thoughts(content: Any) -> tuple[str, str]:
    """The visible text of a message's content, and the thoughts among its parts."""
    if isinstance(content, str) or content is None:
        return content or "", ""
    parts = content if isinstance(content, list) else [content]
    texts, thoughts = [], []
    for part in parts:
        kind = str(part.get("type") or "") if isinstance(part, Mapping) else ""
        if kind.startswith(("thinking", "reasoning", "redacted_thinking", "thought")):
            thoughts.append(_plain({name: value for name, value in part.items() if name != "type"}))
        elif kind in ("", "text", "output_text", "refusal"):
            texts.append(_plain(part))
    return "".join(texts), "".join(thoughts)


def _plain(value: Any) -> str:
    """The text in a value that holds text somewhere: a string, a part, or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_plain(item) for item in value)
    if isinstance(value, Mapping):
        for name in ("text", "thinking", "reasoning", "content", "summary", "refusal", "value"):
            if read := _plain(value.get(name)):
                return read
        return ""
    return "" if value is None or isinstance(value, bool) else str(value)


def _first_count(raw: Mapping[str, Any], *names: str) -> int:
    return next((count for name in names if (count := _count(raw.get(name)))), 0)


def _count(value: Any) -> int:
    """A number of tokens; 0 for anything that is not a number."""
    if type(value) is int:
        return max(0, value)
    if value is None or isinstance(value, bool):
        return 0
    try:
        return max(0, int(float(str(value).replace(",", ""))))
    except (ValueError, OverflowError):
        return 0
