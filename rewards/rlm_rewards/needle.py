"""Scores answers to S-NIAH, the search for a number in a long text.

`official` is RULER's string match (NVIDIA/RULER, scripts/eval/synthetic/constants.py, string_match_all with one
reference): 1.0 if the number occurs anywhere in the output, even in a copy of the whole context.
`strict` is ours. The answer is the text of the last line `Answer: ...`, or the whole output if it has no such line.
Blanks, quotes, `*`, `[]`, `$`, a \\boxed{} and one final period around it are stripped; the rest must be the number and
nothing else (`4,401,937` is a number).
"""

from __future__ import annotations

import re
from typing import Any

MODES = ("official", "strict")
KEYED_LINE = re.compile(r"^[ \t*_`#>-]{0,8}answer[*_`]{0,4}:([^\r\n]*)", re.I | re.M)
NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+")


def score(output: Any, gold: Any, mode: str = "official") -> float:
    """1.0 or 0.0. `gold`: the number's digits. Raises ValueError for an unknown mode, and nothing else."""
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
