"""The `answer` variable of a REPL, read in every form that a model writes.

A REPL starts with `answer = {"content": "", "ready": False}`. After each cell this module reads the variable, whatever
the cell did to it, and puts a usable dict back. It runs in the child, within the cell's time limit: what it calls (str,
bool) may be the model's own code.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_TRUE = frozenset(("true", "yes", "y", "1", "ready", "done", "on"))
_MISSING = object()
_PLAIN = (bool, int, float, str, list, type(None))
# Kept under names of our own: a cell may set `sys.set_int_max_str_digits = None`.
_JSONEncoder, _isfinite = json.JSONEncoder, math.isfinite
_get_digits, _set_digits = sys.get_int_max_str_digits, sys.set_int_max_str_digits


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
    digits = _get_digits()
    try:
        _set_digits(0)  # 7**10000 is an answer
        if isinstance(value, (bytes, bytearray)):
            return value[: 4 * limit].decode("utf-8", "replace")
        if isinstance(value, int) and value.bit_length() > 4 * limit:
            raise MemoryError
        if _is_array(value):
            value = value.tolist()  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(value, (list, tuple, dict)):
            return _json(value, limit)
        return str(value)
    except MemoryError:
        return "(the answer's content is too large to be read)"
    except Exception as error:
        return f"(the answer's content cannot be shown: {type(error).__name__})"
    finally:
        _set_digits(digits)


def _json(value: Any, limit: int) -> str:
    """`value` as JSON, cut just beyond the limit; `str(value)` where it has no JSON form."""
    try:
        try:
            return _encoded(value, limit)
        except (TypeError, ValueError):  # a key or a number that JSON does not have
            return _encoded(_within_json(value, 0), limit)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _encoded(value: Any, limit: int) -> str:
    parts, size = [], 0
    for part in _JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).iterencode(value):
        parts.append(part)
        size += len(part)
        if size > limit:
            break
    return "".join(parts)


def _is_array(value: Any) -> bool:
    return _is_of(value, "numpy") and getattr(value, "ndim", 0) > 0


def _is_of(value: Any, package: str) -> bool:
    return type(value).__module__.partition(".")[0] == package


def _plain(value: Any) -> Any:
    """A number of numpy or sympy, or an array, as Python's own; anything else as text."""
    if _is_of(value, "numpy") and hasattr(value, "tolist"):
        plain = value.tolist()
        if type(plain) not in _PLAIN and value.dtype.kind == "f":  # of more digits than Python's
            return float(plain)
        return plain if type(plain) in _PLAIN else str(plain)
    if _is_of(value, "sympy"):
        if getattr(value, "is_Integer", False):
            return int(value)
        if getattr(value, "is_Float", False):
            return float(value)
        if value in (True, False):
            return bool(value)
    return str(value)


def _within_json(value: Any, depth: int) -> Any:
    """`value` with the keys of its dicts, and its numbers that are not finite, as JSON can have them: `"nan"`, `"inf"`.
    TypeError where a key is no number."""
    if depth > 100:
        raise RecursionError
    if _is_of(value, "numpy"):
        value = _plain(value)
    if isinstance(value, float) and not _isfinite(value):
        return float.__repr__(value)
    if isinstance(value, (list, tuple)):
        return [_within_json(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {}
    for key, item in value.items():
        if not (key is None or isinstance(key, (str, int, float))):
            key = _plain(key)
            if isinstance(key, str):
                raise TypeError("no key of JSON")
        plain[_within_json(key, depth + 1)] = _within_json(item, depth + 1)
    return plain
