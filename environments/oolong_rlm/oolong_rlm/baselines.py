"""Baselines that do not read: the score that keywords, chance, or giving every answer at once can earn.

`BASELINES` maps a name to a function from a task of any data set to an answer. `random` and `keyword` label each
instance at random or by keywords and then compute the answer exactly, `majority` gives all instances the label that
keywords name most often, `list everything` gives all possible answers, `label dump` a label for every line in place of
the answer, and `no context` guesses from the question alone. For transcripts see `real_baselines.py`.

The keyword baseline knows every phrase of a generated vocabulary, more than anybody could guess. It is at chance with
`leak=0` and perfect with `leak=1`: that difference bounds what keywords contribute to a score. In published windows it
knows only the names of the labels. Host side.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import combinations

from oolong_rlm.real_baselines import REAL_BASELINES
from oolong_rlm.solving import Labeler, read_rows, solve
from oolong_rlm.vocabulary import load_vocabulary
from rlm_env.task import Task

ANSWERS_LISTED = 500
"""`list everything` names so many users, dates or numbers at most."""


@cache
def keywords(vocabulary: str) -> dict[str, str]:
    """Word -> label, for the words that occur in phrases of one label only and in no frame."""
    loaded = load_vocabulary(vocabulary)
    common = set(" ".join(loaded.lead + loaded.plain + loaded.hard + loaded.tail).split())
    owners: dict[str, set[str]] = {}
    for label, phrases in loaded.labels.items():
        for word in set(" ".join(phrases).split()) - common:
            owners.setdefault(word, set()).add(label)
    return {word: min(labels) for word, labels in owners.items() if len(labels) == 1}


def keyword_label(text: str, labels: list[str], vocabulary: str) -> str:
    """The label most of whose phrases' words occur; among equals one that the text's checksum picks."""
    known = keywords(vocabulary) if vocabulary else {word: label for label in labels for word in label.split()}
    votes = Counter({known[word] for word in re.findall(r"[\w-]+", text) if known.get(word) in labels})
    best = max(votes.values(), default=0)
    tied = [label for label in sorted(labels) if votes[label] == best]
    return tied[zlib.crc32(text.encode()) % len(tied)]


def chance_label(text: str, labels: list[str], vocabulary: str) -> str:
    """Any of the labels, by the text's checksum."""
    return sorted(labels)[zlib.crc32(text.encode()) % len(labels)]


def answer(task: Task, labeler: Labeler) -> str:
    """The answer to a synth or pairs task in its form, computed from the labeler's labels."""
    return solve(task.question, read_rows(task, labeler))


def random_labels(task: Task) -> str:
    return answer(task, chance_label)


def keyword(task: Task) -> str:
    return answer(task, keyword_label)


def majority(task: Task) -> str:
    label = Counter(row.label for row in read_rows(task, keyword_label)).most_common(1)[0][0]
    return answer(task, lambda text, labels, vocabulary: label)


def list_everything(task: Task) -> str:
    """All pairs of users; else all labels, users, dates or small numbers, behind the key that the question names."""
    rows = read_rows(task, chance_label)
    users = sorted({row.user for row in rows})
    kind = task.info["answer_type"]
    if kind == "PAIRS":
        return "\n".join(f"({a}, {b})" for a, b in combinations(users, 2))
    if kind == "LABEL":
        return f"Label: {', '.join(sorted({row.label for row in rows}))}"
    if kind == "USER":
        return f"User: {', '.join(map(str, users[:ANSWERS_LISTED]))}"
    if kind == "DATE":
        return f"Date: {', '.join(f'{day:%m/%d/%Y}' for day in sorted({row.day for row in rows})[:ANSWERS_LISTED])}"
    if kind == "COMPARISON":
        return "Answer: more common than, less common than, same frequency as"
    return f"Answer: {', '.join(map(str, range(min(len(rows), ANSWERS_LISTED) + 1)))}"


def label_dump(task: Task) -> str:
    """A label for every line, by keywords."""
    return "\n".join(f"User {row.user}: {row.label}" for row in read_rows(task, keyword_label))


def no_context(task: Task) -> str:
    """From the question alone: the label or user that it names first, else what is most often right."""
    named = re.search(r"one of the labels: ([^,.]+)", task.question)
    user = re.search(r"(?:IDs|User) (\d+)", task.question)
    guesses = {
        "LABEL": f"Label: {named[1] if named else 'none'}",
        "USER": f"User: {user[1] if user else 10000}",
        "DATE": "Date: 01/06/2023",
        "COMPARISON": "Answer: more common than",
        "MONTH_YEAR": "Answer: March 2022",
        "PAIRS": "(10000, 10001)",
    }
    return guesses.get(task.info["answer_type"], "Answer: 1")


def for_task(name: str, baseline: Callable[[Task], str]) -> Callable[[Task], str]:
    """The baseline of that name for any data set. A published question of unknown form is answered with nothing."""

    def run(task: Task) -> str:
        if task.info["subset"] == "real":
            return REAL_BASELINES[name](task)
        try:
            return baseline(task)
        except ValueError:
            if "vocabulary" in task.info:
                raise
            return ""

    return run


BASELINES: dict[str, Callable[[Task], str]] = {
    name: for_task(name, baseline)
    for name, baseline in {
        "random": random_labels,
        "majority": majority,
        "keyword": keyword,
        "list everything": list_everything,
        "label dump": label_dump,
        "no context": no_context,
    }.items()
}
"""Name -> a function from a task to the answer of that baseline."""
