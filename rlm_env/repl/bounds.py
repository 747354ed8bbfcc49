"""Limits that host and child both know, and the two ways in which text is shortened.

The child bounds what it sends; the host bounds it again, because a child may be hostile.
"""

from __future__ import annotations

import sys

MAX_ERROR = 4_000
"""Characters of a traceback."""
MAX_JSON = 32 * 2**10
"""Bytes of JSON of one dict prompt, without its long texts."""
MAX_JSON_DEPTH = 32
MAX_JSON_VALUES = 4096
"""Values of one dict prompt, nested ones included."""
JSON_CHARS = 8
"""What a byte of JSON is charged, in characters of text: parsed, it can take 29 bytes of memory."""
MAX_JSON_INT = 2**63
"""Integers of a dict prompt are smaller, whatever their sign."""
TEXT_COST = 512
"""Bytes that a long text, which travels in pieces, counts for besides its characters."""
MAX_ZYGOTE_MESSAGE = 256 * 2**10
"""Bytes of one request to a zygote, or of its reply."""
MARKER_ROOM = 80
"""Characters of a limit that are kept for the marker; every limit is larger."""


def shorten(text: str, limit: int, total: int | None = None, tail: str | None = None) -> str:
    """`text` cut to `limit` characters: its head, a marker with the true length, its tail.

    `total` and `tail` are given where `text` is only the beginning of something longer.
    """
    total = len(text) if total is None else total
    if total <= limit:
        return text
    tail = text if tail is None else tail
    room = limit - MARKER_ROOM
    head_part, tail_part = text[: room - room // 2], tail[-(room // 2) :]
    return f"{head_part}\n... [{omitted(total, limit):,} of {total:,} characters omitted] ...\n{tail_part}"[:limit]


def first_line(text: str, limit: int = 200) -> str:
    """The first line of an error message that is not blank, cut to `limit` characters, without a colon at its end.

    "" if there is none. For a model, further lines are often of no use, and can tell about the host.
    """
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:limit].rstrip(": ")


def omitted(total: int, limit: int) -> int:
    """How many of `total` characters `shorten` leaves out."""
    return total - (limit - MARKER_ROOM) if total > limit else 0


def held_bytes(prompt: str | bytes) -> int:
    """Memory that a prompt takes on the host until it is answered; for JSON an upper bound of what it becomes."""
    return sys.getsizeof(prompt) if type(prompt) is str else 512 + 4 * JSON_CHARS * len(prompt)


def held_texts(prompts: list[str]) -> int:
    """`held_bytes` of many texts together, all of them `str` itself and no subclass."""
    return sum(map(str.__sizeof__, prompts))
