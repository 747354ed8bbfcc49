"""Baselines that do not compute: numbers that anybody may guess, numbers of the question, and many boxes at once.

`BASELINES` maps a name to a function from a task to an answer that is to be scored. Host side.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rlm_env.authoring.draw import Draw
from rlm_env.task import Task

NUMBER = re.compile(r"[0-9]+")


def random_number(task: Task) -> str:
    return f"\\boxed{{{Draw('random', task.id).below(10_000)}}}"


def keyword(task: Task) -> str:
    """A number of the question."""
    return f"\\boxed{{{Draw('question', task.id).choice(NUMBER.findall(task.question))}}}"


def list_everything(task: Task) -> str:
    """All numbers of the question, and the small ones, in one box."""
    return "\\boxed{" + ", ".join([*map(str, range(20)), *NUMBER.findall(task.question)]) + "}"


BASELINES: dict[str, Callable[[Task], str]] = {
    "random": random_number,
    "majority": lambda task: "\\boxed{1}",
    "keyword": keyword,
    "list everything": list_everything,
    "label dump": lambda task: task.question,
    "no context": lambda task: "\\boxed{0}",
}
"""`majority` is the commonest answer of textbooks; `label dump` hands the question back. There is no context, so that
`no context` knows of nothing at all."""
