"""Copies that are nearly right: what careless models and pipelines make of a text.

`BASELINES` maps a name to a function from a task to an answer that is to be scored: the slips of `CHANGES`, whose exact
matches say how much of the benchmark each costs, and baselines that copy nothing: `random` (the text's characters in
random order), `majority` (its commonest character, so often), `label dump` (the whole question), `no context` (a text
of one's own). Host side.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import partial

from rlm_env.authoring.draw import Draw
from rlm_env.task import Task

CHANGES: dict[str, Callable[[str], str]] = {
    "CRLF to LF": lambda text: text.replace("\r\n", "\n"),
    "tabs to blanks": lambda text: text.replace("\t", "    "),
    "no trailing blanks": lambda text: "\n".join(line.rstrip() for line in text.split("\n")),
    "outer blanks stripped": str.strip,
    "NFC": lambda text: unicodedata.normalize("NFC", text),
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "plain blanks": lambda text: text.replace("\u00a0", " "),
    "plain quotes": lambda text: text.replace("\u2019", "'"),
    "backslashes halved": lambda text: text.replace("\\\\", "\\"),
    "quotes unescaped": lambda text: text.replace('\\"', '"'),
    "ASCII only": lambda text: text.encode("ascii", "ignore").decode(),
    "completed": lambda text: text + "]",
    "last character lost": lambda text: text[:-1],
    "first half": lambda text: text[: len(text) // 2],
    "in a code fence": lambda text: f"```\n{text}\n```",
    "repr": repr,
}


def baseline(change: str, task: Task) -> str:
    """The answer of whoever makes that change to the text."""
    return f"<answer>{CHANGES[change](task.gold)}</answer>"


def shuffled(task: Task) -> str:
    return f"<answer>{''.join(Draw('random', task.id).shuffled(task.gold))}</answer>"


def commonest(task: Task) -> str:
    [(character, _)] = Counter(task.gold).most_common(1)
    return f"<answer>{character * len(task.gold)}</answer>"


FLOORS: dict[str, Callable[[Task], str]] = {
    "random": shuffled,
    "majority": commonest,
    "label dump": lambda task: task.question,
    "no context": lambda task: "<answer>Lorem ipsum dolor sit amet.</answer>",
}
BASELINES: dict[str, Callable[[Task], str]] = FLOORS | {change: partial(baseline, change) for change in CHANGES}
