"""Reads from a refusal the largest limit of output tokens that an endpoint accepts."""

from __future__ import annotations

import re


def output_cap(detail: str, limit: int) -> int | None:
    """The largest limit of output tokens that a refusal names, if it is smaller than `limit`; None if it names none."""
    if not re.search(
        r"max_?(?:completion_|output_?|new_)?tokens|max(?:imum)? (?:output |completion )?tokens", detail, re.I
    ):
        return None
    for pattern, less in (
        (r"\[\s*\d+\s*,\s*(\d[\d,]*)\s*\)", 1),
        (r"\[\s*\d+\s*,\s*(\d[\d,]*)\s*\]", 0),
        (r"to (\d[\d,]*) \(exclusive\)", 1),
        (
            r"(?:at most|up to|or equal to|no more than|cannot exceed|greater than|not exceed|limit (?:of|is)|<=|≤|>"
            r"|maximum(?: (?:is|of|value|allowed))*:?|and|allowed is"
            r"|exceeds (?:the )?(?:model |maximum |allowed )*(?:limit|maximum)?(?: of)?) *[`'\"]?(\d[\d,]*)",
            0,
        ),
        (r"(?:less|fewer|lower|smaller) than (?!or equal)[`'\"]?(\d[\d,]*)", 1),
    ):
        for found in re.finditer(pattern, detail, re.IGNORECASE):
            number = int(found[1].replace(",", "")) - less
            if 0 < number < limit:
                return number
    numbers = {int(n.replace(",", "")) for n in re.findall(r"(?<![\w.\-])\d[\d,]*(?![\w\-]|\.\d)", detail)}
    smaller = [number for number in numbers if 16 <= number < limit]
    return smaller[0] if len(smaller) == 1 else None
