"""Answers to questions of Oolong-synth and Oolong-Pairs, computed from labeled rows.

Right where the labels are: what a baseline does not know is only what the lines mean. Questions are read from their
words. Host side. Not covered: Oolong-real.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, NamedTuple

from oolong_rlm.pairs import Pairs, gather, read_roles
from oolong_rlm.questions import MONTH_NAMES
from rlm_env.task import Task

LINE = re.compile(r"^Date: (\w{3} \d\d, \d{4}) \|\| User: (\d+) \|\| Instance: (.*?)(?: \|\| Label: .*)?$", re.M)
Labeler = Callable[[str, list[str], str], str]
"""(instance text, labels of the window, name of the vocabulary, empty where published) -> label."""


class Row(NamedTuple):
    day: date
    user: int
    label: str


def read_rows(task: Task, labeler: Labeler) -> list[Row]:
    """The lines of a task with the labels that the labeler gives them; printed labels are not looked at."""
    head = task.context.partition(" || Instance: ")[0]
    labels = task.info.get("labels") or re.findall(r"'([^']+)'", head) or ["none"]
    vocabulary = task.info.get("vocabulary", "")
    return [
        Row(datetime.strptime(day, "%b %d, %Y").date(), int(user), labeler(text, labels, vocabulary))
        for day, user, text in LINE.findall(task.context)
    ]


def top(values: Iterable[Any], rank: int = 0) -> Any:
    """The value at a rank by frequency; ties fall to the smaller one, an absent rank to the last."""
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return ranked[min(rank, len(ranked) - 1)][0] if ranked else "none"


def solve(question: str, rows: list[Row]) -> str:
    """The answer to a question about labeled rows. Raises ValueError on an unknown pattern."""
    if "list all pairs of user IDs" in question:
        return str(Pairs(gather(rows), *read_roles(question)))

    def found(pattern: str) -> re.Match | None:
        return re.search(pattern, question)

    if m := found(r"user IDs ([\d, ]+)\.") or found(r"users with IDs ([\d, ]+)\."):
        users = {int(user) for user in m[1].split(",")}
        rows = [row for row in rows if row.user in users]
    if m := found(r"occur in (\w+) of any year"):
        rows = [row for row in rows if MONTH_NAMES[row.day.month - 1] == m[1]]
    if m := found(r"occur between (\w+ \d+, \d+) and (\w+ \d+, \d+), inclusive"):
        first, last = (datetime.strptime(text, "%b %d, %Y").date() for text in m.groups())
        rows = [row for row in rows if first <= row.day <= last]
    count = Counter(row.label for row in rows)
    months: dict[tuple[int, int], Counter] = {}
    for row in sorted(rows):
        months.setdefault((row.day.year, row.day.month), Counter())[row.label] += 1

    if m := found(r"which of the labels is the (most|least) common\?.* one of the labels: (.*)\.$"):
        sign = -1 if m[1] == "most" else 1
        return f"Label: {min(m[2].split(', '), key=lambda label: sign * count[label])}"
    if m := found(r"is label '(.+?)' more common, less common, or the same frequency as label '(.+?)'\?"):
        a, b = count[m[1]], count[m[2]]
        said = "more common than" if a > b else "less common than" if a < b else "same frequency as"
        return f"Answer: {m[1]} is {said} {m[2]}"
    if m := found(r"how many data points should be classified as label '(.+?)'\?"):
        return f"Answer: {count[m[1]]}"
    if m := found(r"which (user|date) is represented (the second )?most often\?"):
        if m[1] == "user":
            return f"User: {top((row.user for row in rows), int(bool(m[2])))}"
        return f"Date: {top((row.day for row in rows), int(bool(m[2])))}"
    if m := found(r"which user has the most instances with the label (.+?)\?"):
        return f"User: {top(row.user for row in rows if row.label == m[1])}"
    if m := found(r"more instances with the label (.+?): User (\d+) or User (\d+)\?"):
        return f"User: {top(row.user for row in rows if row.label == m[1] and str(row.user) in m.groups()[1:])}"
    if m := found(r"how many dates are represented exactly (\d+) times?\?"):
        return f"Answer: {sum(n == int(m[1]) for n in Counter(row.day for row in rows).values())}"
    if m := found(r"was label '(.+?)' more common, .* before (\w+ \d+, \d+), as compared"):
        day = datetime.strptime(m[2], "%b %d, %Y").date()
        before, after = [row for row in rows if row.day < day], [row for row in rows if row.day > day]
        a = sum(row.label == m[1] for row in before) * len(after)
        b = sum(row.label == m[1] for row in after) * len(before)
        said = "more common" if a > b else "less common" if a < b else "the same frequency"
        return f"Answer: {m[1]} is {said} before {m[2]}"
    if m := found(r"In which month did the label '(.+?)' first occur more often than the label '(.+?)'\?"):
        year, month = next((key for key, n in months.items() if n[m[1]] > n[m[2]]), (0, 1))
        return f"Answer: {MONTH_NAMES[month - 1]} {year}"
    if m := found(r"For how many months does the label '(.+?)' occur more frequently than the label '(.+?)'\?"):
        return f"Answer: {sum(n[m[1]] > n[m[2]] for n in months.values())}"
    if m := found(r"For how many months is the label '(.+?)' the single most"):
        return f"Answer: {sum(all(n[m[1]] > v for k, v in n.items() if k != m[1]) for n in months.values())}"
    raise ValueError(f"no known question: {question[:200]!r}")
