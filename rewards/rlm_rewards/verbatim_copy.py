"""Scores the copy of a text: exact match, share of characters in place, Levenshtein similarity.

The formulas are those of PrimeIntellect's verbatim_copy and verbatim_copy_rlm. As there, the answer is the content of
the last \\boxed{...} (braces balanced), but not if the text to copy itself contains a \\boxed: a perfect copy always
scores 1.0.

The edit distance is computed here, bit-parallel on Python's long integers (16,000 x 16,000 characters: about 0.05 s),
so that it needs no dependency. For very long texts it is a lower bound, see `levenshtein_similarity`.
"""

from __future__ import annotations

from operator import eq
from typing import Any

MAX_LENGTH = 200_000
"""Length of a text, in characters, up to which the edit distance is computed."""
MAX_CELLS = 1_000_000_000
"""Product of the two lengths up to which it is computed (31,000 x 31,000); also bounds memory, to about 125 MB."""


def metrics(expected: Any, answer: Any) -> dict[str, float]:
    """`exact_match`, `char_accuracy` and `levenshtein_similarity` of a copy, each in [0, 1].

    `char_accuracy` is the number of positions at which both have the same character, divided by the length of the
    longer one. Unicode is not normalized. Anything but two texts scores 0.
    """
    if not isinstance(expected, str) or not isinstance(answer, str):
        return {"exact_match": 0.0, "char_accuracy": 0.0, "levenshtein_similarity": 0.0}
    copy = answer if "\\boxed{" in expected else extract_box(answer)
    if copy == expected:
        return {"exact_match": 1.0, "char_accuracy": 1.0, "levenshtein_similarity": 1.0}
    return {
        "exact_match": 0.0,
        "char_accuracy": sum(map(eq, expected, copy)) / max(len(expected), len(copy)),
        "levenshtein_similarity": levenshtein_similarity(expected, copy),
    }


def extract_box(text: str) -> str:
    """The content of the last `\\boxed{...}`, braces balanced; the text itself if there is none or it is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return text
    depth, at, begin = 1, start + len("\\boxed{"), start + len("\\boxed{")
    while depth:
        close = text.find("}", at)
        if close < 0:
            return text
        depth += text.count("{", at, close) - 1
        at = close + 1
    return text[begin : at - 1]


def extract_answer(completion: Any) -> str:
    """The text between the last pair of `<answer>` and `</answer>`, every blank kept; empty without such a pair."""
    if not isinstance(completion, str):
        return ""
    end = completion.rfind("</answer>")
    start = completion.rfind("<answer>", 0, end) if end >= 0 else -1
    if start < 0:
        return ""
    begin = start + len("<answer>")
    return completion[begin : completion.find("</answer>", begin)]


def levenshtein_similarity(one: str, other: str) -> float:
    """1 - distance / length of the longer text; 1.0 for two empty ones.

    If the texts, after their common beginning and end are removed, are too long for `MAX_LENGTH` or `MAX_CELLS`, only
    that beginning and end count as equal: a lower bound.
    """
    longest = max(len(one), len(other))
    if not longest:
        return 1.0
    one, other = without_common_ends(one, other)
    if max(len(one), len(other)) > MAX_LENGTH or len(one) * len(other) > MAX_CELLS:
        return 1.0 - max(len(one), len(other)) / longest
    return 1.0 - levenshtein(one, other) / longest


def without_common_ends(one: str, other: str) -> tuple[str, str]:
    """Both texts without their common beginning and then their common end; the distance stays the same."""
    start = common(one, other)
    one, other = one[start:], other[start:]
    end = common(one[::-1], other[::-1])
    return one[: len(one) - end], other[: len(other) - end]


def common(one: str, other: str) -> int:
    """Length of the common beginning, by halving: comparing slices is far faster than comparing characters."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def levenshtein(one: str, other: str) -> int:
    """The edit distance (insert, delete, replace). Bit i of the vectors is row i of the shorter text; a step is a
    column. Source: Hyyro 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances"."""
    rows, columns = sorted((one, other), key=len)
    if not rows:
        return len(columns)
    size = len(rows)
    everywhere, last = (1 << size) - 1, 1 << (size - 1)
    places = places_of(rows)
    up, down, distance = everywhere, 0, size  # where the next row is one more, one less; the last row's value
    for character in columns:
        match = places.get(character, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right_up = down | (everywhere & ~(diagonal | up))
        right_down = diagonal & up
        if right_up & last:
            distance += 1
        elif right_down & last:
            distance -= 1
        right_up = (right_up << 1) | 1
        right_down <<= 1
        up = (right_down | ~(diagonal | right_up)) & everywhere
        down = right_up & diagonal & everywhere
    return distance


def places_of(text: str) -> dict[str, int]:
    """Maps a character to a number whose bit i is set if the text has that character at i."""
    flags: dict[str, bytearray] = {}
    width = len(text) // 8 + 1
    for i, character in enumerate(text):
        if character not in flags:
            flags[character] = bytearray(width)
        flags[character][i >> 3] |= 1 << (i & 7)
    return {character: int.from_bytes(bits, "little") for character, bits in flags.items()}
