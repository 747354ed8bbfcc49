"""Baselines that do not understand the sentence: what a score may owe to searching for the name or for any number.

`BASELINES` maps a name to a function from a task to an answer that is to be scored. Host side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from needle_rlm.prose import VOCABULARIES
from rlm_env.authoring.draw import Draw
from rlm_env.task import Task

NAME = re.compile(r"special magic number for (\S+)\?")
NUMBER = re.compile(r"[0-9]+")
SENTENCE = re.compile(r"[^.\n]+\.")


def keyword(task: Task) -> str:
    """A number from a sentence in which the name occurs, drawn at random."""
    name = NAME.search(task.question)[1]
    found = [n for s in SENTENCE.findall(task.context) if name in s for n in NUMBER.findall(s)]
    return f"Answer: {Draw('keyword', task.id).choice(found)}" if found else ""


def first_match(task: Task) -> str:
    """The number in the first sentence that contains `number for <name> is`, regardless of the rest of it."""
    name = NAME.search(task.question)[1]
    found = re.search(rf"number for {re.escape(name)} is [^.]*?([0-9]+)", task.context)
    return f"Answer: {found[1]}" if found else ""


def random_number(task: Task) -> str:
    """Any number of the context."""
    return f"Answer: {Draw('random', task.id).choice(NUMBER.findall(task.context))}"


def majority(task: Task) -> str:
    """The number that occurs most often, of the longest ones: what a policy says that looks at no name."""
    numbers = Counter(NUMBER.findall(task.context))
    digits = max(map(len, numbers))
    return f"Answer: {max((n for n in numbers if len(n) == digits), key=lambda n: (numbers[n], n))}"


def list_everything(task: Task) -> str:
    """All numbers of the context."""
    return "Answer: " + ", ".join(NUMBER.findall(task.context))


def label_dump(task: Task) -> str:
    """All sentences in which the name occurs, in place of the answer."""
    name = NAME.search(task.question)[1]
    return "\n".join(sentence.strip() for sentence in SENTENCE.findall(task.context) if name in sentence)


def no_context(task: Task) -> str:
    """A number of the right length."""
    digits = VOCABULARIES[task.info["profile"]].digits
    return f"Answer: {Draw('no context', task.id).between(10 ** (digits - 1), 10**digits - 1)}"


BASELINES: dict[str, Callable[[Task], str]] = {
    "random": random_number,
    "majority": majority,
    "keyword": keyword,
    "first match": first_match,
    "list everything": list_everything,
    "label dump": label_dump,
    "no context": no_context,
}
