"""Baselines that do not follow the walk: guesses without any page, and search results alone.

Host side: each gives an answer to be scored. `snippets` uses the tools, as a model would.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from rlm_env.authoring.draw import Draw
from rlm_env.task import Task

Tools = Sequence[Callable[..., Awaitable[str]]]
WORD = re.compile(r"[A-Za-z]{4,}")
RESULT = re.compile(r"^\d+\. (.*)\n(\S+)\n(.*)$", re.M)
VALUE = re.compile(r"[0-9][0-9,]*")


def guess(task: Task) -> str:
    """A likely value, by the form of the question."""
    asked = task.question.removesuffix(task.question.partition("? Give")[2])
    if "On what date" in asked:
        return "Answer: 1 January 1850"
    return "Answer: 1850" if "In what year" in asked else "Answer: 100"


def list_everything(task: Task) -> str:
    """All years of two centuries."""
    return "Answer: " + ", ".join(map(str, range(1750, 1950)))


BASELINES: dict[str, Callable[[Task], str]] = {
    "guess": guess,
    "list everything": list_everything,
    "the question": lambda task: task.question,
    "no answer": lambda task: "Answer: unknown",
}


async def snippets(task: Task, tools: Tools) -> str:
    """Searches for the words of each sentence of the question and answers with a number from the results if there is
    one, else with a title."""
    search_web = tools[0]
    titles, numbers = [], []
    for sentence in task.question.split(". ")[:-1]:
        for title, _, snippet in RESULT.findall(await search_web(" ".join(WORD.findall(sentence)), 20)):
            titles.append(title)
            numbers += VALUE.findall(snippet)
    found = titles if "called?" in task.question or not numbers else numbers
    return f"Answer: {Draw('snippets', task.id).choice(found)}" if found else ""
