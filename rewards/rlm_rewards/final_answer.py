"""Two forms in which replies to several benchmarks state their answer: a tag, and a JSON object."""

from __future__ import annotations

import json
import re
from typing import Any

TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.I | re.S)
"""An answer in tags, none within another."""
FENCE = re.compile(r"\A```\w*\s(.*)```\Z", re.S)


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, as a whole or in one fence; None where it is anything else."""
    fenced = FENCE.match(text)
    body = fenced[1].strip() if fenced else text
    if not body.startswith("{"):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
