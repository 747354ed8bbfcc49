"""Tasks that are made one by one, each from its index alone, so that any of them can be made again alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from rlm_env.task import Split, Task


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
