"""Builds a long text without ever holding it twice."""

from __future__ import annotations

from collections import deque


def join_once(chunks: deque[str]) -> str:
    """Joins the chunks and empties the deque. CPython grows `text` in place and frees each chunk once it is added, so
    that a context is never held twice, as it would be with `"".join`."""
    text = ""
    for _ in range(len(chunks)):
        text += chunks.popleft()
    return text
