"""The published sets `oolongbench/oolong-synth` and `oolongbench/oolong-real` as tasks.

They are pinned by commit and refused where their columns are not those that this module maps
(`rlm_env/authoring/published.py`). They are large (about 12 and 20 GB), hence streamed unless local files are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oolong_rlm.hub_pairs import pair_tasks
from oolong_rlm.real import SUFFIX
from rlm_env.authoring.published import Published, read_rows
from rlm_env.task import Split, Task

SPLITS = {"eval": "test", "train": "validation"}
PUBLISHED = {
    "hub-synth": Published(
        "oolongbench/oolong-synth",
        None,
        "f0d59eaf0febf130664cfceb710436c8e3216b2b",
        {
            "id": (int, str),
            "context_len": int,
            "dataset": str,
            "context_window_text": str,
            "context_window_text_with_labels": str,
            "question": str,
            "task_group": str,
            "task": str,
            "answer": str,
            "answer_type": str,
            "input_subset": (str, bool),
            "num_labels": int,
            "context_window_id": (int, str),
        },
    ),
    "hub-real": Published(
        "oolongbench/oolong-real",
        "dnd",
        "6bc9ef04866fcf005c9749b70649be69dd37fffb",
        {
            "id": (int, str),
            "context_window_id": (int, str),
            "context_window_text": str,
            "question": str,
            "answer": str,
            "question_type": str,
            "episodes": list,
            "campaign": str,
        },
    ),
}
PUBLISHED["hub-pairs"] = PUBLISHED["hub-synth"]


@dataclass(frozen=True)
class PublishedSet:
    """A published set, and the part of it to read."""

    dataset: str
    """A key of `PUBLISHED`."""
    revision: str | None
    """A commit (40 hex digits); None is the pinned one."""
    files: str | Path | None
    """A folder or file with the published rows (parquet, json or jsonl) to be read instead of the hub."""
    lengths: Sequence[int] | None = None
    """synth and pairs: values of `context_len` to keep."""
    sources: Sequence[str] | None = None
    """synth: values of `dataset` to keep, for example trec_coarse."""
    with_labels: bool = False


def hub_tasks(options: PublishedSet, split: Split) -> Iterator[Task]:
    """The rows of the split `test` (eval) or `validation` (train), in order; for pairs, questions about their windows.

    Raises ImportError without `datasets`, ValueError where revision, columns or values are not as expected, and
    FileNotFoundError where `files` has none."""
    windows: set[tuple[int, str]] = set()
    for row in read_rows(PUBLISHED[options.dataset], SPLITS[split], options.revision, options.files):
        if options.dataset == "hub-real":
            yield real_task(row)
        elif (options.lengths is None or row["context_len"] in options.lengths) and (
            options.sources is None or row["dataset"] in options.sources
        ):
            window = (row["context_len"], str(row["context_window_id"]))
            if options.dataset == "hub-synth":
                yield synth_task(row, options.with_labels)
            elif window not in windows:
                windows.add(window)
                yield from pair_tasks(row, options.with_labels)


def synth_task(row: Mapping[str, Any], with_labels: bool) -> Task:
    info = {
        "subset": "synth",
        "answer_type": row["answer_type"].rpartition(".")[2],
        "task_group": row["task_group"],
        "family": row["task"].rpartition(".")[2].lower(),
        "task": row["task"].rpartition(".")[2],
        "length_tokens": row["context_len"],
        "dataset": row["dataset"],
        "with_labels": with_labels,
        "context_window_id": str(row["context_window_id"]),
    }
    context = row["context_window_text_with_labels" if with_labels else "context_window_text"]
    return Task(row["question"], context, row["answer"], f"synth-{row['id']}", info)


def real_task(row: Mapping[str, Any]) -> Task:
    """The question repeats the answer format, which is only in the context, where an RLM does not see it."""
    info = {
        "subset": "real",
        "answer_type": None,
        "family": row["question_type"],
        "length_tokens": len(row["context_window_text"]) // 4,
        "episodes": list(row["episodes"]),
        "n_episodes": len(row["episodes"]),
        "campaign": row["campaign"],
        "context_window_id": str(row["context_window_id"]),
    }
    return Task(row["question"] + SUFFIX, row["context_window_text"], row["answer"], f"real-{row['id']}", info)
