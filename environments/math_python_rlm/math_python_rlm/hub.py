"""INTELLECT-3-RL math as tasks, pinned by commit (`rlm_env/authoring/published.py`).

The set has one published split, `train`; one question of twenty, chosen by a checksum of its text, is our `eval`.
Golds are taken as they are. Not covered: the LLM judge that the set's own environment asks where math-verify fails.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from math_python_rlm.generate import split_of
from rlm_env.authoring.published import Published, read_rows
from rlm_env.task import Split, Task

PUBLISHED = Published(
    "PrimeIntellect/INTELLECT-3-RL",
    "math",
    "a9eb9183224cec63fe9a71e7a3a80cff14868624",
    {"question": str, "answer": str},
    others=True,
)
EVAL_SHARE = 20
DIFFICULTY = "avg@8_qwen3_4b_thinking_2507"
"""Column with the share of eight attempts that Qwen3-4B-Thinking-2507 solved."""
INSTRUCTION = "Solve the following math problem. Put the final answer into \\boxed{}.\n\n"


@dataclass(frozen=True)
class PublishedSet:
    """The published problems, and which of them to keep."""

    revision: str | None
    """A commit (40 hex digits); None is the tested one."""
    files: str | Path | None
    """A folder or file with the published rows (parquet, json or jsonl) to be read instead of the hub."""
    solve_rate: tuple[float, float] | None
    """(low, high): keeps the rows whose `DIFFICULTY` is in this range, both ends included."""


def hub_tasks(options: PublishedSet, split: Split) -> Iterator[Task]:
    """The rows that belong to the split, in order.

    Raises ImportError without `datasets`, ValueError where revision, columns or values are not as expected, and
    FileNotFoundError where `files` has none.
    """
    for row in read_rows(PUBLISHED, "train", options.revision, options.files):
        if split_of(row["question"], EVAL_SHARE) != split:
            continue
        rate = row.get(DIFFICULTY)
        if options.solve_rate is not None:
            if not isinstance(rate, int | float):
                raise ValueError(f"solve_rate: {PUBLISHED.repository} has no number in column {DIFFICULTY!r}")
            if not options.solve_rate[0] <= rate <= options.solve_rate[1]:
                continue
        info = {"family": "intellect-3", "dataset": "hub", "solve_rate": rate}
        id = f"hub-{zlib.crc32((row['question'] + chr(0) + row['answer']).encode('utf-8', 'surrogatepass')):08x}"
        yield Task(INSTRUCTION + row["question"], gold=row["answer"], id=id, info=info)
