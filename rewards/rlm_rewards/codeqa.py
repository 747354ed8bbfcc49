"""Scores multiple choice over a code repository (LongBench-v2 "Code Repository Understanding", RLM paper's CodeQA).

`official` is the extraction of LongBench-v2 (THUDM/LongBench, pred.py): all `*` are deleted; the answer is the first
`The correct answer is (X)`, else the first `The correct answer is X`, with exactly this case and these blanks,
whatever letters follow. Anything else is no answer.

`strict` is ours:
- the last statement counts: `answer is X`, `answer: X` or `\\boxed{X}`, "answer is" in any case, with brackets, quotes,
  `*` or "option" around the letter; or the whole text, if that is a single letter;
- the choice is a capital letter by itself (`Alpha` is none);
- a statement that continues with another choice (`A or B`, `A and C`) is no answer.

Not covered: LongBench-v2's switch, off by default, that gives 0.25 if nothing was extracted.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

MODES = ("official", "strict")
DRESS = re.compile(r"[ \t*`\"'$]+")
"""Decoration that models put around an answer; `strict` reads each run of it as one blank."""


def score(response: Any, gold: Any, mode: str = "official", choices: str = "ABCD") -> float:
    """1.0 if the extracted choice is `gold`, else 0.0. `gold` is a choice; in the form of the RLM paper
    (`choices="0123"`) it may also be a number. Raises ValueError for an unknown mode or choices, and nothing else."""
    said = extract_choice(response, mode, choices)
    return float(said is not None and isinstance(gold, str | int) and said == str(gold))


def extract_choice(response: Any, mode: str = "official", choices: str = "ABCD") -> str | None:
    """The choice that a response states, or None. `choices`: one letter or digit each.

    Raises ValueError for an unknown mode or choices, and nothing else."""
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if not choices.isalnum() or not choices.isascii():
        raise ValueError(f"choices must be ASCII letters or digits, got {choices!r}")
    if not isinstance(response, str):
        return None
    if mode == "official":
        text = response.replace("*", "")
        bracketed, plain = official_patterns(choices)
        match = bracketed.search(text) or plain.search(text)
        return match[1] if match else None
    plain = DRESS.sub(" ", response)
    alone = plain.strip(" \r\n()[].")
    if len(alone) == 1 and alone in choices:
        return alone
    statement, another = strict_patterns(choices)
    last = None
    for last in statement.finditer(plain):  # noqa: B007 - the last one is wanted
        pass
    return None if last is None or another.match(plain, last.end()) else last[1]


@cache
def official_patterns(choices: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return (
        re.compile(rf"The correct answer is \(([{choices}])\)"),
        re.compile(rf"The correct answer is ([{choices}])"),
    )


@cache
def strict_patterns(choices: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a statement and of its continuation with another choice, for a text in which `DRESS` is blanks."""
    choice = rf"([{choices}])(?![A-Za-z0-9_])"
    said = r"\b(?i:answer)(?i: is)? ?:? ?(?i:choice |option )?"
    box = r"(?:\\(?:boxed|text|mathrm|textbf)\{ ?){0,2}"
    return (
        re.compile(rf"(?:{said}|\\boxed\{{ ?)[(\[]?{box}\(? ?{choice}"),
        re.compile(rf"[)\]}}., ]{{0,6}}(?:(?i:or|and)\b|[&/,]) ?(?i:option )?[(\[]? ?{choice}"),
    )
