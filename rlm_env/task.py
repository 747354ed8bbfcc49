"""A task: a question, its context, and the right answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rlm_env.context import Context

if TYPE_CHECKING:
    import datasets

Split = Literal["train", "eval"]
MOST_ROWS, MOST_CHARS = 100_000, 10**9
"""Tasks, and characters of their contexts, beyond which `Tasks.to_dataset` takes a split without limit for endless."""
LENGTH = "length_tokens"
"""Key of a task's info: about how many tokens its context has. Reports group tasks by it."""
MOST_TOKENS = 10**15
"""More than any context has."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question about one context.

    `context` becomes the variable `context` in the REPL: a str, bytes, list or dict (of JSON-like values), or the Path
    of a file or folder (its text; a dict of its files, without symbolic links), or a `Folder`, some of whose files were
    chosen. `gold`, the right answer, never leaves the host.
    `id` must be unique and stable within an environment's split; left empty, it becomes the task's position
    (see `Tasks`).
    """

    question: str
    context: Context = ""
    gold: Any = None
    id: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.question, str) or not self.question:
            raise ValueError(f"Task.question must be a non-empty str, got {self.question!r}")
        if not isinstance(self.context, Context):
            raise TypeError(
                f"Task.context must be str, bytes, list, dict or pathlib.Path, got {type(self.context).__name__}; "
                "convert it first (a DataFrame: df.to_dict('records'), an iterator: list(...))"
            )


def context_length(info: Mapping[str, Any]) -> int | None:
    """Tokens of the context of the task with this info; None where it does not tell a number of tokens."""
    value = info.get(LENGTH)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST_TOKENS:
        return None
    return round(value)


class Tasks:
    """The tasks of one split: an iterable that can be iterated again and may be endless.

    `make` returns a new iterator of Task. Ids that the environment left empty become `<split>-<index>`.
    """

    def __init__(self, make: Callable[[], Iterable[Task]], split: str) -> None:
        self._make = make
        self._split = split

    def __iter__(self) -> Iterator[Task]:
        for index, task in enumerate(self._make()):
            if task.id:
                yield task
            else:
                yield Task(task.question, task.context, task.gold, f"{self._split}-{index}", task.info)

    def take(self, n: int) -> list[Task]:
        """The first `n` tasks, or all where the split has fewer. Raises ValueError unless n >= 1."""
        if n < 1:
            raise ValueError(f"the number of tasks must be at least 1, got {n}")
        return [task for _, task in zip(range(n), self, strict=False)]

    def to_dataset(self, limit: int | None = None) -> datasets.Dataset:
        """A `datasets.Dataset` with the columns id, question, context, gold and info; the last three are JSON unless
        they are str. Needs the extra `data`, and `limit` where the split is endless or very large (ValueError)."""
        import datasets

        def text(value: Any) -> str:
            return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)

        rows: list[dict[str, str]] = []
        chars = 0
        for task in self if limit is None else self.take(limit):
            row = {name: text(getattr(task, name)) for name in ("id", "question", "context", "gold", "info")}
            rows.append(row)
            chars += len(row["context"])
            if limit is None and (len(rows) > MOST_ROWS or chars > MOST_CHARS):
                raise ValueError(
                    f"the split {self._split!r} has more than {len(rows) - 1:,} tasks, and may be endless: "
                    "to_dataset(limit=...) says how many are wanted"
                )
        return datasets.Dataset.from_list(rows)
