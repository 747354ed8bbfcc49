"""Building a long text without holding it twice."""

from __future__ import annotations

from collections import deque


def join_once(chunks: deque[str]) -> str:
    """The chunks' text; the deque is empty afterwards. CPython grows `text` in place and each chunk is freed once it is
    in, so that a context is never held twice, as it would be by `"".join`."""
    text = ""
    for _ in range(len(chunks)):
        text += chunks.popleft()
    return text
