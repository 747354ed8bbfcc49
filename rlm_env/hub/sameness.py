"""Rules about sameness: another listing, another process and access by index make the same tasks, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from rlm_env.context import context_text
from rlm_env.environment import Environment
from rlm_env.hub.findings import Finding
from rlm_env.hub.guarded import environment_code, raised
from rlm_env.task import Split, Task, Tasks

OTHER_HASH_SEED = "20260101"
"""Python's hash seed in the other process: code that depends on the order of a set differs there."""
OTHER_PROCESS_SECONDS = 300
LISTED_AGAIN = 3
"""Tasks of a split that are listed a second time."""


def listed_again(environment: Environment, by_split: Mapping[str, list[Task]]) -> list[Finding]:
    """A finding for each split whose first tasks are others when they are listed a second time, after those of the
    other split."""
    found: list[Finding] = []
    for split, tasks in reversed(list(by_split.items())):
        listed = cast(Split, split)
        first = tasks[:LISTED_AGAIN]
        if not first:
            continue
        try:
            with environment_code("same-bytes", f"split {split}"):
                again = Tasks(lambda listed=listed: environment.tasks(listed), split).take(len(first))
        except Exception as error:
            message = f"tasks() {raised(error)} when it is called a second time"
        else:
            if list(map(task_digest, first)) == list(map(task_digest, again)):
                continue
            message = "tasks() gives other tasks when it is called a second time"
        remedy = "keep no state from one call to the next: draw each task from seed, split and position"
        found.append(Finding("same-bytes", f"split {split}", message, remedy))
    return found


def tasks_by_index(environment: Environment, by_split: Mapping[str, list[Task]], n: int) -> list[Finding]:
    """A finding for each place at which `task(split, index)`, where it is overridden, is not what `tasks(split)` has
    there. `n`: how many tasks of each split were asked for; fewer are all that it has."""
    if type(environment).task is Environment.task:
        return []
    found: list[Finding] = []
    for split, tasks in by_split.items():
        places: dict[int, Task | None] = {-1: None}
        places |= {index: tasks[index] for index in (0, len(tasks) - 1) if tasks}
        places |= {len(tasks): None} if len(tasks) < n else {}
        for index, wanted in places.items():
            if message := _unlike(environment, split, index, wanted):
                remedy = "make both from split and index alone, and let task() raise IndexError outside of the split"
                found.append(Finding("task-by-index", f"task({split!r}, {index})", message, remedy))
    return found


def _unlike(environment: Environment, split: str, index: int, wanted: Task | None) -> str | None:
    """How the task at an index differs from the one that is wanted there, or None where there is to be none."""
    try:
        with environment_code("task-by-index", f"task({split!r}, {index})"):
            task = environment.task(cast(Split, split), index)
    except IndexError:
        return None if wanted is None else "raises IndexError, though tasks() has one there"
    except Exception as error:
        return raised(error)
    if wanted is None:
        return "gives a task, though tasks() has none there"
    named = task if task.id else replace(task, id=f"{split}-{index}")
    return None if task_digest(named) == task_digest(wanted) else "gives another task than tasks() at that place"


def other_bytes(name: str, options: Mapping[str, Any], seed: int, by_split: Mapping[str, list[Task]]) -> list[Finding]:
    """A finding for the first task of each split that another process, with another hash seed, makes differently."""
    request = json.dumps(
        {"name": name, "options": dict(options), "seed": seed, "n": {k: len(v) for k, v in by_split.items()}}
    )
    environ = {**os.environ, "PYTHONHASHSEED": OTHER_HASH_SEED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "rlm_env.hub.other_process", request]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=OTHER_PROCESS_SECONDS)
    except subprocess.TimeoutExpired:
        return [_not_made(name, f"no end after {OTHER_PROCESS_SECONDS} s")]
    if done.returncode:
        return [_not_made(name, (done.stderr.strip() or "it said nothing").splitlines()[-1])]
    theirs = json.loads(done.stdout.splitlines()[-1])
    found: list[Finding] = []
    for split, tasks in by_split.items():
        pairs = zip(tasks, [*theirs.get(split, []), *[None] * len(tasks)], strict=False)  # None: it makes fewer
        differing = next((task.id for task, other in pairs if task_digest(task) != other), None)
        if differing is not None:
            remedy = "draw from rlm_env.authoring.draw.Draw with a name; sort what comes from a set or a folder"
            found.append(Finding("same-bytes", differing, "another process makes another task in its place", remedy))
    return found


def _not_made(name: str, why: str) -> Finding:
    remedy = "let the environment be made in any process, from its options alone"
    return Finding("same-bytes", name, f"another process cannot make the tasks: {why}", remedy)


def task_digest(task: Task) -> str:
    """SHA-256 over all that makes a task: question, context (the bytes of its files), gold, id and info."""
    parts = [task.id, task.question, context_digest(task), _written(task.gold), _written(task.info)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _written(value: Any) -> str:
    """A value as text that does not depend on the order of sets."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_written, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_written(part)}' for key, part in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return repr(value)


def context_digest(task: Task) -> str:
    """SHA-256 of a context, of the bytes of its files where it is a path. Raises OSError where it is not there."""
    if isinstance(task.context, bytes):
        data = task.context
    elif isinstance(task.context, Path) and task.context.is_file():
        data = task.context.read_bytes()
    else:
        data = context_text(task.context).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()
