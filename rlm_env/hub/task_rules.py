"""Rules about tasks: both splits have some, contexts can be read, ids are unique, splits are apart."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import get_args

from rlm_env.environment import Environment
from rlm_env.hub.findings import Finding
from rlm_env.hub.guarded import environment_code, raised
from rlm_env.hub.sameness import context_digest
from rlm_env.task import LENGTH, Split, Task, Tasks, context_length

LISTED_TASKS, LISTED_SECONDS = 1000, 1.0
"""Tasks of a split whose ids are looked at, and the time for them."""


def first_tasks(environment: Environment, n: int) -> tuple[dict[str, list[Task]], list[Finding]]:
    """The first `n` tasks of each split, and a finding for each split that has none or cannot be made."""
    by_split: dict[str, list[Task]] = {}
    found: list[Finding] = []
    for split in get_args(Split):
        try:
            with environment_code("tasks", f"split {split}"):
                by_split[split] = Tasks(lambda split=split: environment.tasks(split), split).take(n)
            problem = None if by_split[split] else "it has no tasks"
        except Exception as error:
            by_split[split] = []
            problem = raised(error)
        if problem:
            remedy = "let tasks() yield tasks of both splits; use train for training and eval for evaluation"
            found.append(Finding("tasks", f"split {split}", problem, remedy))
    return by_split, found


def unreadable_contexts(tasks: list[Task]) -> list[Finding]:
    """A finding for each task whose context cannot be read, such as a file that is not there."""
    found: list[Finding] = []
    for task in tasks:
        try:
            context_digest(task)
        except Exception as error:
            remedy = "let the context be there, and be plain data"
            found.append(Finding("tasks", task.id, f"its context cannot be read: {raised(error)}", remedy))
    return found


def unstorable_info(tasks: list[Task]) -> list[Finding]:
    """A finding for each task whose info cannot be stored as JSON, or tells no number as the context's length."""
    found: list[Finding] = []
    for task in tasks:
        try:
            json.dumps(task.info, allow_nan=False)
        except (TypeError, ValueError) as error:
            found.append(Finding("tasks", task.id, f"info cannot be written as JSON: {error}", "use plain JSON values"))
            continue
        if (length := task.info.get(LENGTH)) is not None and context_length(task.info) is None:
            remedy = "give the number of tokens, an estimate will do"
            found.append(Finding("tasks", task.id, f"{LENGTH} in its info is no number of tokens: {length!r}", remedy))
    return found


def repeated_ids(environment: Environment) -> tuple[list[Finding], int]:
    """A finding for each id that occurs twice, in a split or in both, and the number of tasks: as many of each split as
    can be made in a moment."""
    counts: Counter[str] = Counter()
    for split in get_args(Split):
        end = time.monotonic() + LISTED_SECONDS
        with environment_code("ids", f"split {split}"), contextlib.suppress(Exception):  # told by the rule tasks
            for task in islice(Tasks(lambda split=split: environment.tasks(split), split), LISTED_TASKS):
                counts[task.id] += 1
                if time.monotonic() > end:
                    break
    found = [
        Finding("ids", name, f"{count} tasks have this id", "name tasks by split and position: f'{split}-{index}'")
        for name, count in counts.items()
        if count > 1
    ]
    return found, counts.total()


def shared_tasks(by_split: Mapping[str, list[Task]]) -> list[Finding]:
    """A finding for each task of eval that is a task of train too."""
    trained = {_asked(task): task.id for task in by_split.get("train", [])}
    return [
        Finding(
            "splits",
            task.id,
            f"asks the same of the same context as {trained[_asked(task)]} of train",
            "draw each split from a stream of its own, or part the data by split",
        )
        for task in by_split.get("eval", [])
        if _asked(task) in trained
    ]


def _asked(task: Task) -> tuple[str, str]:
    return task.question, context_digest(task)
