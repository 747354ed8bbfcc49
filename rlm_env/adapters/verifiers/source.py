"""Tasks by reference: an environment by name, seed and options, and its tasks by split and index.

What travels between the processes of verifiers is the reference. Context and gold answer are made again where they
are needed, which is cheap, and never stand in a trace.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from rlm_env.environment import Environment
from rlm_env.registry import find_environment
from rlm_env.task import Split, Task, Tasks

KEPT_TASKS = 64
"""Tasks that a source remembers, the last ones that were asked for or passed over."""


class TaskSource:
    """One environment and its tasks by index, for any thread.

    An environment that makes a task by its index is asked for it. Of any other one, an iterator of each split is kept
    open, so that tasks that are asked for in order are made once.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._kept: OrderedDict[tuple[Split, int], Task] = OrderedDict()
        self._open: dict[Split, tuple[int, Iterator[Task]]] = {}
        self._lock = threading.Lock()

    def task(self, split: Split, index: int) -> Task:
        """The task at an index of a split. Raises IndexError behind the end."""
        with self._lock:
            if (split, index) not in self._kept:
                if self.environment.makes_any_task:
                    self._keep(split, index, self.environment.task(split, index))
                else:
                    self._advance(split, index)
            self._kept.move_to_end((split, index))
            return self._kept[split, index]

    def _advance(self, split: Split, index: int) -> None:
        at, tasks = self._open.get(split, (0, None))
        if tasks is None or index < at:
            at, tasks = 0, iter(Tasks(lambda: self.environment.tasks(split), split))
        for place in range(at, index + 1):
            task = next(tasks, None)
            if task is None:
                self._open.pop(split, None)
                raise IndexError(f"task {index} of {split!r}: there are only {place}")
            self._keep(split, place, task)
            self._open[split] = (place + 1, tasks)

    def _keep(self, split: Split, index: int, task: Task) -> None:
        self._kept[split, index] = task
        if len(self._kept) > KEPT_TASKS:
            self._kept.popitem(last=False)


def task_source(name: str, seed: int, options: Mapping[str, Any]) -> TaskSource:
    """The source of an environment, the same for equal references. Raises what `find_environment` raises."""
    return _source(name, seed, json.dumps(options, sort_keys=True))


@functools.cache
def _source(name: str, seed: int, options: str) -> TaskSource:
    return TaskSource(find_environment(name, seed, **json.loads(options)))
