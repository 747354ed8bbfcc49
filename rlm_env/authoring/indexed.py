"""Tasks that are made one by one, each from its index alone, so that any of them can be made again alone; and the
environment whose tasks are such a stream, or a published one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

from rlm_env.authoring.options import one_of
from rlm_env.environment import Environment
from rlm_env.task import Split, Task, Tasks


@dataclass(frozen=True)
class IndexedTasks:
    """An endless stream of tasks: called with a split, it gives them from the first one on."""

    at: Callable[[Split, int], Task]
    """Makes the task at an index; depends on nothing else."""

    def __call__(self, split: Split) -> Iterator[Task]:
        return (self.at(split, index) for index in count())


def check_index(split: Split, index: int, num_tasks: int | None) -> None:
    """Raises IndexError for an index that a split of so many tasks (None: endless) does not have."""
    if index < 0:
        raise IndexError(f"task {index} of {split!r}: tasks are counted from 0")
    if num_tasks is not None and index >= num_tasks:
        raise IndexError(f"task {index} of {split!r}: there are only {num_tasks}")


class StreamedEnvironment(Environment):
    """An environment whose tasks are the first of a stream."""

    def __init__(self, stream: Callable[[Split], Iterator[Task]], num_tasks: int | None) -> None:
        """`stream`: gives the tasks of a split from the first one on; where it is an `IndexedTasks`, each task is made
        by its index alone. `num_tasks`: how many a split has; None: all."""
        self.num_tasks = num_tasks
        self._stream = stream
        self.makes_any_task = isinstance(stream, IndexedTasks)

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: islice(self._stream(split), self.num_tasks), split)

    def task(self, split: Split, index: int) -> Task:
        if not isinstance(self._stream, IndexedTasks):
            return super().task(split, index)
        one_of("split", split, ("train", "eval"))
        check_index(split, index, self.num_tasks)
        return self._stream.at(split, index)
