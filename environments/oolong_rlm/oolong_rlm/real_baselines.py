"""Baselines for transcripts: they see which names are spoken, and by whom, but not whether anything is rolled or cast.

Names are those that the header of a generated context lists; a published one lists none, and all baselines but
`no context` then answer with nothing. Host side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from rlm_env.authoring.draw import Draw
from rlm_env.task import Task

RULES = re.compile(r"checks of its own, namely (.*?), and spells of its own, namely (.*?)\. Questions")
CHARACTER = re.compile(r"^(\w+) plays the character (\w+)\.$", re.M)
COUNTED = re.compile(r"\b(?:number|count|How many|total)\b", re.I)
FIRST_OR_LAST = re.compile(r"\b(first|last) (?:(two|three) )?spells? cast\b")


def spoken(task: Task) -> list[tuple[str, str]]:
    """(speaker, name) of every mention of a check, or of a spell, whichever is asked about."""
    rules = RULES.search(task.context)
    if not rules:
        return []
    names = rules[2 if "spell" in task.question else 1].split(", ")
    either = re.compile(rf"\b(?:{'|'.join(names)})\b")
    lines = task.context[rules.end() :].split("\n")
    return [(line.partition(":")[0], name) for line in lines for name in either.findall(line)]


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


def keyword(task: Task) -> str:
    """Counts every mention, decoys included."""
    said = spoken(task)
    if not said:
        return ""
    players = dict((character, player) for player, character in CHARACTER.findall(task.context))
    asked = set(re.findall(r"\w+", task.question))
    about = [name for _, name in said if name in asked]
    who = {player for character, player in players.items() if character in asked or player in asked}
    if "percentage" in task.question or "value" in task.question:
        return box(5 if "percentage" in task.question else max(1, len(said) // 20))
    if COUNTED.search(task.question):
        return box(len(about) or sum(speaker in who for speaker, _ in said) or len(said))
    names = [name for _, name in said]
    if found := FIRST_OR_LAST.search(task.question):
        n = {"two": 2, "three": 3}.get(found[2] or "", 1)
        return box(", ".join(names[:n] if found[1] == "first" else names[-n:]))
    return box(Counter(names).most_common(1)[0][0])


def random_answer(task: Task) -> str:
    """A mentioned name, or a number up to that of all mentions."""
    said, draw = spoken(task), Draw("random", task.id)
    if not said:
        return ""
    return box(draw.below(len(said)) if COUNTED.search(task.question) else draw.choice(said)[1])


def majority(task: Task) -> str:
    """The name that is mentioned most often, or 1."""
    said = spoken(task)
    if not said:
        return ""
    return box(1 if COUNTED.search(task.question) else Counter(name for _, name in said).most_common(1)[0][0])


def list_everything(task: Task) -> str:
    """Every name, or every number up to 100."""
    names = list(dict.fromkeys(name for _, name in spoken(task)))
    return box(", ".join(map(str, range(101)) if COUNTED.search(task.question) else names)) if names else ""


def label_dump(task: Task) -> str:
    """Every mention with its speaker, in place of the answer."""
    return "\n".join(f"{speaker}: {name}" for speaker, name in spoken(task))


REAL_BASELINES: dict[str, Callable[[Task], str]] = {
    "random": random_answer,
    "majority": majority,
    "keyword": keyword,
    "list everything": list_everything,
    "label dump": label_dump,
    "no context": lambda task: box(1),
}
