"""Baselines that do not read code: the score that letters, the length of options, or a search for names can earn.

Host side: each returns an answer to be scored. `majority` always gives the first option; any other would do as well,
since the right option is equally often in each place.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rlm_env.authoring.draw import Draw
from rlm_env.context import context_text
from rlm_env.task import Task

OPTION = re.compile(r"^\((\w)\) (.*)$", re.M)
NAME = re.compile(r"`([\w.]+)")
DOTTED = re.compile(r"[\w.]*\w")
WORD = re.compile(r"\w+")


def options_of(task: Task) -> list[tuple[str, str]]:
    """(name, text) of each option, read from the question."""
    return OPTION.findall(task.question)


def say(choice: str) -> str:
    return f"The correct answer is ({choice})"


def random_letter(task: Task) -> str:
    return say(Draw("letter", task.id).choice(options_of(task))[0])


def majority_letter(task: Task) -> str:
    return say(options_of(task)[0][0])


def longest_option(task: Task) -> str:
    """One of the longest options, at random."""
    options = options_of(task)
    longest = max(len(text) for _, text in options)
    return say(Draw("longest", task.id).choice([name for name, text in options if len(text) == longest]))


def shortest_option(task: Task) -> str:
    """One of the shortest options, at random."""
    options = options_of(task)
    shortest = min(len(text) for _, text in options)
    return say(Draw("shortest", task.id).choice([name for name, text in options if len(text) == shortest]))


def keyword(task: Task) -> str:
    """The option whose words share the most blocks of code with a name from the question; ties are broken at random.
    A block ends at an empty line."""
    asked = {name.rpartition(".")[2] for name in NAME.findall(task.question.partition("\n\n")[0])}
    text = "\n\n".join(task.context.values()) if isinstance(task.context, dict) else context_text(task.context)
    blocks = [words for block in text.split("\n\n") if asked & (words := set(WORD.findall(block)))]
    votes = {}
    for choice, option in options_of(task):
        words = {name.rpartition(".")[2] for name in DOTTED.findall(option)}
        votes[choice] = sum(len(words & block) for block in blocks)
    best = max(votes.values())
    return say(Draw("keyword", task.id).choice([choice for choice, count in votes.items() if count == best]))


BASELINES: dict[str, Callable[[Task], str]] = {
    "random letter": random_letter,
    "majority letter": majority_letter,
    "longest option": longest_option,
    "shortest option": shortest_option,
    "keyword": keyword,
    "list everything": lambda task: " ".join(say(name) for name, _ in options_of(task)),
    "no context": lambda task: "The context was not given.",
}
