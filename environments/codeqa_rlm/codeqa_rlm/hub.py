"""LongBench-v2 "Code Repository Understanding" as tasks, pinned by commit (`rlm_env/authoring/published.py`).

50 of the 503 published questions. The set is made for evaluation: it has one published split, `train` by name, and
here it is `eval`. Golds are taken as they are.
Not covered: the other domains; the prompt of the original, whose words differ from ours (the form of the answer is the
same).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codeqa_rlm.choices import ask
from codeqa_rlm.generate import CHARACTERS_PER_TOKEN
from rlm_env.authoring.published import Published, read_rows
from rlm_env.task import Split, Task

LETTERS = "ABCD"
PUBLISHED = Published(
    "THUDM/LongBench-v2",
    None,
    "2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9",
    {
        "_id": str,
        "domain": str,
        "sub_domain": str,
        "difficulty": str,
        "length": str,
        "question": str,
        **{f"choice_{letter}": str for letter in LETTERS},
        "answer": str,
        "context": str,
    },
)
DOMAIN = "Code Repository Understanding"
ITEMS = 50
"""Questions of the domain at the tested commit."""


@dataclass(frozen=True)
class PublishedSet:
    """The published questions, and the letters or digits that name their choices."""

    revision: str | None
    """A commit (40 hex digits); None is the tested one."""
    files: str | Path | None
    """A file with the published rows (`data.json`), or a folder that has it, to be read instead of the hub."""
    choices: str


def hub_tasks(options: PublishedSet, split: Split) -> Iterator[Task]:
    """The rows of the domain, in order.

    Raises ImportError without `datasets`, ValueError for the split `train` and where revision, columns, values or the
    number of rows are not as expected, and FileNotFoundError where `files` has none.
    """
    if split == "train":
        raise ValueError("dataset 'hub' has no split train: LongBench-v2 is an evaluation set; train on 'generated'")
    found = 0
    for row in read_rows(PUBLISHED, "train", options.revision, options.files):
        if row["domain"] != DOMAIN:
            continue
        if row["answer"] not in LETTERS:
            raise ValueError(
                f"{PUBLISHED.repository}: row {row['_id']!r} has answer = {row['answer']!r}, expected A to D"
            )
        found += 1
        texts = [row[f"choice_{letter}"].strip() for letter in LETTERS]
        info = {
            "family": row["sub_domain"],
            "dataset": "hub",
            "difficulty": row["difficulty"],
            "length": row["length"],
            "length_tokens": len(row["context"]) // CHARACTERS_PER_TOKEN,
            "choices": options.choices,
        }
        gold = options.choices[LETTERS.index(row["answer"])]
        question = ask(row["question"].strip(), texts, options.choices)
        yield Task(question, row["context"], gold, f"longbench-v2-{row['_id']}", info)
    if options.files is None and options.revision in (None, PUBLISHED.revision) and found != ITEMS:
        raise ValueError(
            f"{PUBLISHED.repository}: {found} rows of {DOMAIN!r}, expected {ITEMS}; use the pinned revision"
        )
