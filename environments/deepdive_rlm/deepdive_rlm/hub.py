"""The published DeepDive questions as tasks, pinned by commit (`rlm_env/authoring/published.py`).

`qa_rl` is our `train`, `qa_sft` our `eval`: both are meant for training, and the set has no test split. Golds are taken
as they are. Not covered: the recorded trajectories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deepdive_rlm.questions import FORM
from rlm_env.authoring.published import Published, read_rows
from rlm_env.task import Split, Task

PUBLISHED = Published(
    "zai-org/DeepDive",
    None,
    "ae5691e2371782726cd4487b4131bae8450f0a37",
    {"id": int, "question": str, "answer": str},
    others=True,
)
SPLITS: dict[Split, str] = {"train": "qa_rl", "eval": "qa_sft"}


@dataclass(frozen=True)
class PublishedSet:
    """Which rows to read, and from where."""

    revision: str | None
    """A commit (40 hex digits); None is the tested one."""
    files: str | Path | None
    """A folder or file with the published rows (parquet, json or jsonl) to be read instead of the hub."""


def hub_tasks(options: PublishedSet, split: Split) -> Iterator[Task]:
    """The rows of the split, in order.

    Raises ImportError without `datasets`, ValueError where revision, columns or values are not as expected, and
    FileNotFoundError where `files` has none.
    """
    for row in read_rows(PUBLISHED, SPLITS[split], options.revision, options.files):
        info = {"family": "deepdive", "dataset": "hub"}
        question = f"{row['question'].strip()} {FORM}"
        yield Task(question, gold=row["answer"].strip(), id=f"hub-{SPLITS[split]}-{row['id']}", info=info)
