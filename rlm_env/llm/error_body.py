"""Reads the error that an endpoint sends, in any of the shapes that are in use, also inside a reply of status 200."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlm_env.llm.retries import QUOTA

FAILED_FINISH = frozenset(
    {"error", "error_limit", "failed", "abort", "aborted", "cancelled", "user_cancel", "network_error"}
    | {"insufficient_system_resource", "server_error", "timeout"}
)
"""Finish reasons of a reply that the provider could not finish."""
STATUS_BY_WORDS = (
    (402, QUOTA),
    (429, re.compile(r"rate[_ -]?limit|too many requests|throttl|resource[_ ]exhausted", re.I)),
    (401, re.compile(r"(?:invalid|incorrect|missing)[_ ]api[_ ]key|authentication|unauthori[sz]ed", re.I)),
    (404, re.compile(r"model[_ ]not[_ ]found", re.I)),
    (
        503,
        re.compile(
            r"overloaded|unavailable|internal|server[_ ]error|bad gateway|time[d ]?-?out|disconnected|upstream", re.I
        ),
    ),
)
"""Statuses for errors that bring none, by their words."""
ENVELOPES = ("error", "errors", "detail", "base_resp")
"""Fields that hold the error itself."""
MESSAGES = ("message", "Message", "msg", "error", "detail", "title", "status_msg", "error_msg", "errmsg")
"""Fields that hold an error's words, the best first."""
NO_REASON = frozenset({"failed_generation", "user_id", "request_id", "stack", "stacktrace"})
"""Fields of an error that say nothing about its reason."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error in the endpoint's own words."""

    message: str
    """To be shown: the message, and what the provider behind a gateway said."""
    words: str
    """All that the error says, codes and names of parameters included."""
    code: str = ""
    param: str = ""
    """The parameter that is refused, where the error has a field for it."""
    status: int | None = None
    """The status that the error itself names, or that its words mean."""
    failed_generation: str | None = None
    """The model's text that the endpoint could not read as a tool call (Groq)."""


def read_error(decoded: Any) -> ErrorBody:
    """The error in a decoded body, or in its text."""
    if isinstance(decoded, list) and decoded:
        decoded = decoded[0]
    inner = decoded
    if isinstance(decoded, Mapping):
        inner = next((decoded[name] for name in ENVELOPES if decoded.get(name)), decoded)
        if isinstance(inner, list) and inner:
            inner = inner[0] if len(inner) == 1 else {"message": "; ".join(_leaves_text(item) for item in inner)}
    if not isinstance(inner, Mapping):
        text = str(inner)
        beside = decoded if isinstance(decoded, Mapping) else {}
        code = " ".join(str(beside[name]) for name in ("code", "type", "error_type") if beside.get(name))
        words = _leaves_text(decoded) if beside else text
        return ErrorBody(text, words, code, status=_status(beside.get("status") or code, words))
    words = _leaves_text(decoded)
    code = inner.get("code") or inner.get("type") or ""
    location = inner.get("loc")
    param = location[-1] if isinstance(location, list) and location else inner.get("param")
    generation = inner.get("failed_generation")
    return ErrorBody(
        message=_message(inner) or words,
        words=words,
        code=" ".join(str(inner[name]) for name in ("code", "type", "status") if inner.get(name)),
        param=str(param or ""),
        status=_status(inner.get("status_code") or inner.get("http_status") or code, words),
        failed_generation=generation if isinstance(generation, str) else None,
    )


def error_in_reply(reply: Any) -> ErrorBody | None:
    """The error that a reply of status 200 holds in place of a completion, or None."""
    if not isinstance(reply, Mapping) or reply.get("choices"):
        return None
    return read_error(reply) if reply.get("error") or reply.get("object") == "error" else None


def _error_in_place_of_choices(reply: Mapping[str, Any]) -> ErrorBody | None:
    """The error of a provider that sends its own fields, with no choices."""
    told = any(reply.get(name) for name in (*ENVELOPES, *MESSAGES)) and not reply.get("usage")
    return read_error(reply) if told else None


def error_in_chat_reply(reply: Any) -> ErrorBody | None:
    """The same, also where it stands beside a reply that the provider could not finish."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], Mapping)):
        found = error_in_reply(reply)
        return found or (_error_in_place_of_choices(reply) if isinstance(reply, Mapping) and not choices else None)
    choice = choices[0]
    if error := choice.get("error") or reply.get("error"):
        return read_error({"error": error})
    reason = str(choice.get("finish_reason")).lower()
    return (
        ErrorBody(f"the provider ended the reply with {reason!r}", "", status=502) if reason in FAILED_FINISH else None
    )


def _message(error: Mapping[str, Any]) -> str:
    """The error's message, whatever its field is called."""
    for name in MESSAGES:
        value = error.get(name)
        if value and not isinstance(value, list | Mapping):
            text = str(value)
            break
        if isinstance(value, list | Mapping) and value:
            text = _leaves_text(value)
            break
    else:
        return ""
    location = error.get("loc")
    if isinstance(location, list):
        text = f"{'.'.join(map(str, location))}: {text}"
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("raw"):  # a gateway's message is often only "Provider error"
        text = f"{text}: {_leaves_text(metadata['raw'])}"
    return text


def _status(code: Any, words: str) -> int | None:
    """The status that an error's code or words stand for."""
    try:
        number = int(code)
    except (TypeError, ValueError):
        number = 0
    if 400 <= number <= 599:
        return number
    return next((status for status, pattern in STATUS_BY_WORDS if pattern.search(words)), None)


def _leaves_text(value: Any) -> str:
    """All texts within a value, as one text."""
    return " ".join(_leaves(value))[:8000]


def _leaves(value: Any, depth: int = 0) -> Iterator[str]:
    """The texts within a value, at any depth."""
    if depth > 8:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name not in NO_REASON:
                yield from _leaves(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, depth + 1)
    elif value is not None:
        yield str(value)
