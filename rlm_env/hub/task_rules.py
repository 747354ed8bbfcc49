"""Rules about tasks: both splits have some, ids are unique, splits are apart, another process makes the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rlm_env.context import context_text
from rlm_env.environment import Environment
from rlm_env.hub.findings import Finding
from rlm_env.task import Split, Task, Tasks

OTHER_HASH_SEED = "20260101"
"""Python's hash seed in the other process: code that depends on the order of a set differs there."""
OTHER_PROCESS_SECONDS = 300


def sample_tasks(environment: Environment, n: int) -> tuple[dict[str, list[Task]], list[Finding]]:
    """The first `n` tasks of each split, and a finding for each split that has none or cannot be made."""
    samples: dict[str, list[Task]] = {}
    found: list[Finding] = []
    for split in get_args(Split):
        try:
            samples[split] = Tasks(lambda split=split: environment.tasks(split), split).take(n)
            problem = None if samples[split] else "it has no tasks"
        except Exception as error:
            samples[split] = []
            problem = f"raises {type(error).__name__}: {error}"
        if problem:
            remedy = "let tasks() yield tasks of both splits; use train for training and eval for evaluation"
            found.append(Finding("tasks", f"split {split}", problem, remedy))
    return samples, found


def unstorable_info(tasks: list[Task]) -> list[Finding]:
    """A finding for each task whose info cannot be stored as JSON."""
    found: list[Finding] = []
    for task in tasks:
        try:
            json.dumps(task.info, allow_nan=False)
        except (TypeError, ValueError) as error:
            found.append(Finding("tasks", task.id, f"info cannot be written as JSON: {error}", "use plain JSON values"))
    return found


def repeated_ids(samples: Mapping[str, list[Task]]) -> list[Finding]:
    """A finding for each id that occurs twice, in a split or in both."""
    counts = Counter(task.id for tasks in samples.values() for task in tasks)
    return [
        Finding("ids", name, f"{count} tasks have this id", "name tasks by split and position: f'{split}-{index}'")
        for name, count in counts.items()
        if count > 1
    ]


def shared_tasks(samples: Mapping[str, list[Task]]) -> list[Finding]:
    """A finding for each task of eval that is a task of train too."""
    trained = {_asked(task): task.id for task in samples.get("train", [])}
    return [
        Finding(
            "splits",
            task.id,
            f"asks the same of the same context as {trained[_asked(task)]} of train",
            "draw each split from a stream of its own, or part the data by split",
        )
        for task in samples.get("eval", [])
        if _asked(task) in trained
    ]


def other_bytes(name: str, options: Mapping[str, Any], seed: int, samples: Mapping[str, list[Task]]) -> list[Finding]:
    """A finding for the first task of each split that another process, with another hash seed, makes differently."""
    request = json.dumps(
        {"name": name, "options": dict(options), "seed": seed, "n": {k: len(v) for k, v in samples.items()}}
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
    for split, tasks in samples.items():
        pairs = enumerate(zip(map(task_digest, tasks), theirs.get(split, []), strict=False))
        differing = next((tasks[index].id for index, (ours, other) in pairs if ours != other), None)
        if differing is not None:
            remedy = "draw from rlm_env.authoring.draw.Draw with a name; sort what comes from a set or a folder"
            found.append(Finding("same-bytes", differing, "another process makes another task in its place", remedy))
    return found


def _not_made(name: str, why: str) -> Finding:
    remedy = "let the environment be made in any process, from its options alone"
    return Finding("same-bytes", name, f"another process cannot make the tasks: {why}", remedy)


def task_digest(task: Task) -> str:
    """SHA-256 over all that makes a task: question, context (the bytes of its files), gold, id and info."""
    parts = [task.id, task.question, _context_digest(task), _written(task.gold), _written(task.info)]
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


def _asked(task: Task) -> tuple[str, str]:
    return task.question, _context_digest(task)


def _context_digest(task: Task) -> str:
    if isinstance(task.context, bytes):
        data = task.context
    elif isinstance(task.context, Path) and task.context.is_file():
        data = task.context.read_bytes()
    else:
        data = context_text(task.context).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()
