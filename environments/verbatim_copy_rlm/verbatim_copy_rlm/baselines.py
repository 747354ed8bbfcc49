"""Baselines that copy nothing, and copies that are nearly right, as careless models and pipelines make them.

Both map a name to a function from a task to an answer. `BASELINES` are the environment's baselines: `random` (the
text's characters in random order), `majority` (its most common character, repeated), `label dump` (the whole question),
`no context` (some other text). `SLIPS` are the changes of `CHANGES`; their exact matches show how much of the benchmark
each slip costs. Host side.
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


def slip(change: str, task: Task) -> str:
    """The copy with that change made to it."""
    return f"<answer>{CHANGES[change](task.gold)}</answer>"


def asked(task: Task) -> str:
    """The text to be copied, read out of the question."""
    return task.question.partition("<text>")[2].rpartition("</text>")[0]


def shuffled(task: Task) -> str:
    return f"<answer>{''.join(Draw('random', task.id).shuffled(asked(task)))}</answer>"


def commonest(task: Task) -> str:
    text = asked(task)
    [(character, _)] = Counter(text).most_common(1)
    return f"<answer>{character * len(text)}</answer>"


BASELINES: dict[str, Callable[[Task], str]] = {
    "random": shuffled,
    "majority": commonest,
    "label dump": lambda task: task.question,
    "no context": lambda task: "<answer>Lorem ipsum dolor sit amet.</answer>",
}
SLIPS: dict[str, Callable[[Task], str]] = {change: partial(slip, change) for change in CHANGES}
