"""Scores of multiple choice over a code repository (LongBench-v2 "Code Repository Understanding", RLM paper's CodeQA).

`official` is the extraction of LongBench-v2 (THUDM/LongBench, pred.py): all `*` are deleted, then the first
`The correct answer is (X)`, else the first `The correct answer is X`, case and blanks as written here, whatever
letters follow; anything else is no answer.

`strict` is ours, for those who want to read what was meant and nothing else:
- the last statement counts: `answer is X`, `answer: X`, `\\boxed{X}`, in any case of "answer is", with brackets,
  quotes, `*` or "option" around the letter; or the whole text, where that is one letter;
- the choice is a capital letter that stands alone (`Alpha` is none);
- a statement that goes on with another choice (`A or B`, `A and C`) is no answer.

Not covered: the switch of LongBench-v2, off by default, that gives 0.25 where nothing was extracted.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

MODES = ("official", "strict")
DRESS = re.compile(r"[ \t*`\"'$]+")
"""What models put around an answer; for `strict` each run of it is a blank."""


def score(response: Any, gold: Any, mode: str = "official", choices: str = "ABCD") -> float:
    """1.0 where the extracted choice is `gold`, else 0.0. `gold` is a choice; in the form of the RLM paper
    (`choices="0123"`) also its number. Raises ValueError on an unknown mode or choices, on nothing else."""
    said = extract_choice(response, mode, choices)
    return float(said is not None and isinstance(gold, str | int) and said == str(gold))


def extract_choice(response: Any, mode: str = "official", choices: str = "ABCD") -> str | None:
    """The choice that a response states, or None. `choices`: one letter or digit each.

    Raises ValueError on an unknown mode or choices, on nothing else."""
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
    """A statement, and how it may go on with another choice, in a text whose `DRESS` is single blanks."""
    choice = rf"([{choices}])(?![A-Za-z0-9_])"
    said = r"\b(?i:answer)(?i: is)? ?:? ?(?i:choice |option )?"
    box = r"(?:\\(?:boxed|text|mathrm|textbf)\{ ?){0,2}"
    return (
        re.compile(rf"(?:{said}|\\boxed\{{ ?)[(\[]?{box}\(? ?{choice}"),
        re.compile(rf"[)\]}}., ]{{0,6}}(?:(?i:or|and)\b|[&/,]) ?(?i:option )?[(\[]? ?{choice}"),
    )
