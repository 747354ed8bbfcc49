"""Scores of S-NIAH: was the number found?

`official` is RULER's string match (NVIDIA/RULER, scripts/eval/synthetic/constants.py, string_match_all with one
reference): 1.0 where the number stands anywhere in the output. Whoever copies the whole context scores 1.0 too.
`strict` is ours: the answer is what the last `Answer: ...` says, or the whole text where it has no such line; around
it blanks, quotes, `*`, `[]`, `$`, a \\boxed{} and one final period are cut off; it must be that number and nothing
else, `4,401,937` being one.
"""

from __future__ import annotations

import re
from typing import Any

MODES = ("official", "strict")
KEYED_LINE = re.compile(r"^[ \t*_`#>-]{0,8}answer[*_`]{0,4}:([^\r\n]*)", re.I | re.M)
NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+")


def score(output: Any, gold: Any, mode: str = "official") -> float:
    """1.0 or 0.0. `gold`: the number's digits. Raises ValueError on an unknown mode, on nothing else."""
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if not isinstance(output, str) or not isinstance(gold, str) or not gold:
        return 0.0
    if mode == "official":
        return float(gold.lower() in output.lower())
    said = output
    for match in KEYED_LINE.finditer(output):
        said = match[1]
    said = said.strip(" \t\r\n*_`\"'[]()$").removesuffix(".").rstrip("*_`\"'[]()$")
    if said.startswith("\\boxed{"):
        said = said.removeprefix("\\boxed{").removesuffix("}")
    return float(NUMBER.fullmatch(said) is not None and said.replace(",", "") == gold)
