"""The `answer` variable of a REPL, read in every form that a model writes.

A REPL starts with `answer = {"content": "", "ready": False}`. After each cell this module reads the variable, whatever
the cell did to it, and puts a usable dict back. It runs in the child, within the cell's time limit: what it calls (str,
bool) may be the model's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_TRUE = frozenset(("true", "yes", "y", "1", "ready", "done", "on"))
_MISSING = object()
_JSONEncoder = json.JSONEncoder


class Answer:
    """One namespace's `answer`. `content` and `ready` hold what was read last."""

    def __init__(self, namespace: dict[str, Any], limit: int) -> None:
        self._namespace = namespace
        self._limit = limit
        self.content = ""
        self.ready = False
        self.cut = 0
        """Characters of the content beyond the limit, which were left out; at least so many (see `_json`)."""
        namespace["answer"] = {"content": "", "ready": False}

    def read(self) -> None:
        """Reads the variable, and replaces it by a dict where it is none."""
        value = dict.get(self._namespace, "answer", _MISSING)
        if isinstance(value, dict):
            content, ready = dict.get(value, "content", _MISSING), dict.get(value, "ready", False)
        elif isinstance(value, Mapping):
            content, ready = value.get("content", _MISSING), value.get("ready", False)
        else:
            content, ready = value, False
        self.ready = _truth(ready)
        text = _text(content, self._limit)
        if text is not None:
            self.cut = max(len(text) - self._limit, 0)
            self.content = text[: self._limit]
        if isinstance(value, dict):
            if text is None:
                value["content"] = self.content
            if "ready" not in value:
                value["ready"] = False
        else:
            self._namespace["answer"] = {"content": self.content, "ready": self.ready}


def _truth(value: Any) -> bool:
    """`ready` as a bool: of texts, `true`, `yes`, `done` and the like are true."""
    if isinstance(value, str):
        return value.strip().lower() in _TRUE
    try:
        return bool(value)
    except Exception:
        return False


def _text(value: Any, limit: int) -> str | None:
    """`value` as the answer's text, or None where it is no answer at all (then the last one is kept)."""
    if value is _MISSING or value is None or callable(value) or isinstance(value, ModuleType):
        return None
    if getattr(type(value), "is_failed_call", False):
        return None
    if isinstance(value, str):
        return str.__str__(value)
    try:
        if isinstance(value, (bytes, bytearray)):
            return value[: 4 * limit].decode("utf-8", "replace")
        if isinstance(value, (list, tuple, dict)):
            return _json(value, limit)
        return str(value)
    except MemoryError:
        return "(the answer's content is too large to be read)"
    except Exception as error:
        return f"(the answer's content cannot be shown: {type(error).__name__})"


def _json(value: Any, limit: int) -> str:
    """`value` as JSON, cut just beyond the limit; `str(value)` where it has no JSON form."""
    parts, size = [], 0
    try:
        for part in _JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
            parts.append(part)
            size += len(part)
            if size > limit:
                break
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return "".join(parts)
