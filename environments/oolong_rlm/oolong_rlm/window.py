"""One context window: a header, dated and signed instances one per line, and a recall of the header.

The line format is the original's: `Date: Jan 06, 2023 || User: 76063 || Instance: ...`, with `|| Label: ...` behind
it in the labeled variant. Both variants of a window hold the same instances, so its length is that of the
unlabeled one. Label shares are drawn anew for each window, dates are uniform over about 40 months, and 80 % of
the instances belong to a fifth of the users (Oolong paper, section 2.2).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import date
from typing import Literal

from oolong_rlm.measure import Measure
from oolong_rlm.vocabulary import Vocabulary
from rlm_env.authoring.draw import Draw, wheel
from rlm_env.authoring.text import join_once

MIN_LINES = 4
MAX_LABELS = 4
"""Hard frames name all labels of a window, so there must not be many."""
CHUNK_LINES = 4000
"""Lines that are joined at once: a quarter of a megabyte or more, so that the C library gives a chunk's memory back
when it is freed. With smaller ones the process holds a long context twice although Python does not."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

STANDARD_DAYS = [date.fromordinal(day) for day in range(date(2022, 3, 1).toordinal(), date(2025, 7, 1).toordinal())]
EASY_DAYS = [date(2023, month, day) for month in (1, 2, 3, 4) for day in range(1, 29)]


@dataclass(frozen=True)
class Window:
    """A context and what its lines are, each list of shape [lines]."""

    text: str
    labels: list[str]
    """The labels that the header names; `label_of` indexes it. Not all of them need occur."""
    label_of: list[int]
    user_of: list[int]
    date_of: list[date]
    units: int
    """Length of the unlabeled text, in the units of its measure."""


def show_date(day: date) -> str:
    return f"{MONTHS[day.month - 1]} {day.day:02d}, {day.year}"


SHOWN_DAYS = {False: [show_date(day) for day in STANDARD_DAYS], True: [show_date(day) for day in EASY_DAYS]}
"""Easy or not -> how its days are written."""


def standard_frame(vocabulary: Vocabulary, labels: list[str], lines: int) -> tuple[str, str]:
    """Header and recall, as in the original: the task is described before and after the instances."""
    task = vocabulary.task.format(k=len(labels), labels=", ".join(repr(label) for label in labels))
    described = (
        f"{lines} {vocabulary.noun}, one per line. {task}\n\n"
        f"You will be asked to answer questions about the aggregate label statistics across all {lines} examples in "
        "this dataset. Do not try to guess, estimate, or approximate the result. Calculate the exact answer given "
        "these datapoints.\n\n"
    )
    return f"The following lines contain {described}", f"Recall: the preceding lines contain {described}"


def easy_frame(vocabulary: Vocabulary, labels: list[str], lines: int) -> tuple[str, str]:
    """One short header and no recall."""
    task = vocabulary.task.format(labels=", ".join(labels))
    return f"The following lines contain {lines} {vocabulary.noun}, one per line. {task}\n\n", ""


@dataclass(frozen=True)
class Size:
    """How long a window is: so many lines, or at most so many tokens, filled up to less than a line."""

    amount: int
    unit: Literal["tokens", "lines"] = "tokens"


def make_window(
    vocabulary: Vocabulary,
    size: Size,
    leak: float,
    with_labels: bool,
    measure: Measure,
    draw: Draw,
    crowd: bool = False,
) -> Window:
    """Draws a window of that size; with `crowd` an easy one has more users, the longer it is. Raises ValueError where
    it holds fewer than four lines."""
    easy = vocabulary.name == "easy"
    names = list(vocabulary.labels)
    labels = draw.sample(names, draw.between(2, MAX_LABELS))
    if easy:
        labels.sort()
    frame = easy_frame if easy else standard_frame
    days = EASY_DAYS if easy else STANDARD_DAYS
    shown_days = SHOWN_DAYS[easy]
    count, budget, most_lines = measure.count, math.inf, size.amount
    write = vocabulary.writer(labels, leak, draw)
    label_wheel = wheel([draw.between(1, 8) for _ in labels])
    line_units = count(f"Date: {shown_days[0]} || User: 10000 || Instance: {write(0)}\n")
    frame_units = sum(map(count, frame(vocabulary, labels, 10**6)))
    if size.unit == "tokens":
        budget = size.amount * measure.per_token - frame_units
        most_lines = max(1, budget) // line_units
    users, user_wheel = draw_users(draw, most_lines, easy, crowd)
    heads = [f" || User: {user} || Instance: " for user in users]
    tails = [f" || Label: {label}\n" if with_labels else "\n" for label in labels]

    label_of: list[int] = []
    user_of: list[int] = []
    date_of: list[date] = []
    chunks: deque[str] = deque()
    lines: list[str] = []
    used, random = 0, draw.random
    n_days, n_label_slots, n_user_slots = len(days), len(label_wheel), len(user_wheel)
    while size.unit == "tokens" or len(label_of) < size.amount:
        label = label_wheel[int(random() * n_label_slots)]
        user = user_wheel[int(random() * n_user_slots)]
        day = int(random() * n_days)
        line = f"Date: {shown_days[day]}{heads[user]}{write(label)}"
        used += count(line + "\n")
        if used > budget:
            used -= count(line + "\n")
            break
        lines.append(line + tails[label])
        label_of.append(label)
        user_of.append(users[user])
        date_of.append(days[day])
        if len(lines) == CHUNK_LINES:
            chunks.append("".join(lines))
            lines.clear()
    if len(label_of) < MIN_LINES:
        enough = measure.tokens(frame_units + (MIN_LINES + 1) * line_units)
        raise ValueError(
            f"lengths: {size.amount} tokens hold fewer than {MIN_LINES} lines; use a greater length (about {enough} or "
            "more)"
        )
    chunks.append("".join(lines).removesuffix("\n" if easy else ""))
    header, recall = frame(vocabulary, labels, len(label_of))
    chunks.appendleft(header)
    chunks.append(recall)
    text = join_once(chunks)
    return Window(text, labels, label_of, user_of, date_of, used + count(header) + count(recall))


def draw_users(draw: Draw, lines: int, easy: bool, crowd: bool) -> tuple[list[int], list[int]]:
    """User ids, and a wheel of indices into them by which lines are signed."""
    if easy:
        users = draw.sample(range(10, 100), min(90, max(draw.between(3, 5), lines // 3 if crowd else 0)))
        return users, wheel([draw.between(1, 4) for _ in users])
    n = max(5, min(1000, lines // 6))
    seen: dict[int, None] = {}
    while len(seen) < n:
        seen[draw.between(10000, 99999)] = None
    frequent = n // 5
    # The frequent fifth shares 4 parts of 5, falling from user to user so that few of them tie.
    falling = list(range(2 * frequent, frequent, -1))
    rare = max(1, sum(falling) // (4 * (n - frequent)))
    return list(seen), wheel(falling + [rare] * (n - frequent))
