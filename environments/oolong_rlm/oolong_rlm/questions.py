"""Question families of Oolong-synth: texts, answer formats and golds as in the original (paper, tables 15 to 17).

Every question has one right answer. A family returns None if the window (or the drawn label, user, month ...) would
make it ambiguous: two labels, users or dates tie for the asked rank; a label that the header names does not occur, so
that "least common" has two readings; counts and shares compare differently before and after a date, or the comparison
depends on the side to which the day itself belongs. Nothing is ever resolved by order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from oolong_rlm.window import Window, show_date
from rlm_env.authoring.draw import Draw

MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

ALL = "In the above data,"
USER_FORM = "Give your final answer in the form 'User: [X]', where [X] is the user ID."
DATE_FORM = "Give your final answer in the form 'Date: [X]', where [X] is the date in the format MM/DD/YYYY."


@dataclass(frozen=True)
class Question:
    """A question about a window. `gold` is the column `answer` of the published set: a list written in Python."""

    text: str
    gold: str
    answer_type: str
    """LABEL, NUMERIC, COMPARISON, USER, DATE or MONTH_YEAR."""
    task: str
    """The original's task type, for example MOST_FREQ."""


def question(text: str, answer: Any, answer_type: str, task: str) -> Question:
    """`answer` is what the gold list holds; a date is written as the original writes it."""
    if isinstance(answer, date):
        return Question(text, f"[datetime.date({answer.year}, {answer.month}, {answer.day})]", answer_type, task)
    return Question(text, repr([answer]), answer_type, task)


def nth(counts: Counter, rank: int) -> Any:
    """The key at `rank` (0 is the most frequent), or None if it ties with a neighbor or does not exist."""
    top = counts.most_common(rank + 2)
    if len(top) <= rank or (rank and top[rank - 1][1] == top[rank][1]):
        return None
    if len(top) > rank + 1 and top[rank][1] == top[rank + 1][1]:
        return None
    return top[rank][0]


def more_or_less(a: int, b: int) -> str:
    """The gold of every comparison. The original writes `more common` without `than` for before/after questions; its
    scorer takes either for either, and one way of writing keeps unlike golds unlike in meaning."""
    return "more common than" if a > b else "less common than" if a < b else "same frequency as"


def most_common(
    window: Window, draw: Draw, rows: Sequence[int], opening: str, easy: bool, least: bool = False
) -> Question | None:
    counts = Counter(rows)
    if least:
        if len(counts) < len(window.labels):
            return None
        counts = Counter({label: -n for label, n in counts.items()})
    label = nth(counts, 0)
    if label is None or len(counts) < 2:
        return None
    word = "least" if least else "most"
    present = [name for index, name in enumerate(window.labels) if index in counts]
    text = (
        f"{opening} which of the labels is the {word} common? Give your final answer in the form 'Label: answer' "
        f"where answer is one of the labels: {', '.join(present)}."
    )
    return question(text, window.labels[label], "LABEL", "LEAST_FREQ" if least else "MOST_FREQ")


def least_common(window: Window, draw: Draw, rows: Sequence[int], opening: str, easy: bool) -> Question | None:
    return most_common(window, draw, rows, opening, easy, least=True)


def compare(window: Window, draw: Draw, rows: Sequence[int], opening: str, easy: bool) -> Question | None:
    a, b = draw.sample(range(len(window.labels)), 2)
    counts = Counter(rows)
    if not counts[a] and not counts[b]:
        return None
    one, other = window.labels[a], window.labels[b]
    where = "" if easy else ", where [X] is 'more common than', 'less common than', or 'same frequency as'"
    text = (
        f"{opening} is label '{one}' more common, less common, or the same frequency as label '{other}'? Give your "
        f"final answer in the form 'Answer: {one} is [X] {other}'{where}."
    )
    return question(text, more_or_less(counts[a], counts[b]), "COMPARISON", "RELATIVE_FREQ")


def count(window: Window, draw: Draw, rows: Sequence[int], opening: str, easy: bool) -> Question | None:
    label = draw.below(len(window.labels))
    text = (
        f"{opening} how many data points should be classified as label '{window.labels[label]}'? Give your final "
        "answer in the form 'Answer: number'."
    )
    return question(text, sum(row == label for row in rows), "NUMERIC", "NUMERIC_ONE_CLASS")


COUNTING = {"most_common": most_common, "least_common": least_common, "compare": compare, "count": count}
Family = Callable[[Window, Draw, bool], Question | None]


def over_all(kind: Callable) -> Family:
    return lambda window, draw, easy: kind(window, draw, window.label_of, ALL, easy)


def over_users(kind: Callable) -> Family:
    """A counting question about the instances of some users (one, in the easy vocabulary)."""

    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        users = some_users(window, draw, 1, 1 if easy else 20)
        chosen = set(users)
        rows = [label for label, user in zip(window.label_of, window.user_of, strict=True) if user in chosen]
        opening = (
            "For the following question, only consider the subset of instances that are associated with user IDs "
            f"{', '.join(map(str, users))}. Among instances associated with these users,"
        )
        return kind(window, draw, rows, opening, easy)

    return family


def over_month(kind: Callable) -> Family:
    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        month = draw.choice(window.date_of).month
        rows = [label for label, day in zip(window.label_of, window.date_of, strict=True) if day.month == month]
        name = MONTH_NAMES[month - 1]
        opening = (
            f"For the following question, only consider the subset of instances that occur in {name} of any year. "
            f"Among instances occuring in {name},"
        )
        return kind(window, draw, rows, opening, easy)

    return family


def over_range(kind: Callable) -> Family:
    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        first, last = sorted(draw.choice(window.date_of) for _ in range(2))
        rows = [label for label, day in zip(window.label_of, window.date_of, strict=True) if first <= day <= last]
        if first == last:
            return None
        opening = (
            f"For the following question, only consider the subset of instances that occur between {show_date(first)} "
            f"and {show_date(last)}, inclusive. Among instances occuring in this date range,"
        )
        return kind(window, draw, rows, opening, easy)

    return family


def some_users(window: Window, draw: Draw, low: int, high: int) -> list[int]:
    """Between `low` and `high` different users, frequent ones more often; at most 4 of 5 of all (but `low`)."""
    everybody = len(set(window.user_of))
    n = max(low, min(draw.between(low, high), everybody * 4 // 5))
    chosen: dict[int, None] = {}
    while len(chosen) < min(n, everybody):
        chosen[draw.choice(window.user_of)] = None
    return list(chosen)


def ranked_user(rank: int, subset: bool) -> Family:
    """Which user is represented (second) most often, among all or among some."""
    how = ("most often", "the second most often")[rank]
    task = ("MOST_FREQ", "SECOND_MOST_FREQ")[rank]

    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        counts, opening = Counter(window.user_of), ALL
        if subset:
            users = some_users(window, draw, 3, 20)
            counts, opening = Counter({user: counts[user] for user in users}), among(users)
        user = nth(counts, rank)
        if user is None or len(counts) < 2:
            return None
        return question(f"{opening} which user is represented {how}? {USER_FORM}", user, "USER", task)

    return family


def among(users: list[int]) -> str:
    return (
        "For the following question, only consider the subset of users with IDs "
        f"{', '.join(map(str, users))}. Among these users,"
    )


def user_with_label(subset: bool) -> Family:
    """Which user has the most instances with a label."""

    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        label = draw.choice(window.label_of)
        users, opening = None, ALL
        if subset:
            users = some_users(window, draw, 2, 20)
            opening = among(users)
        rows = zip(window.label_of, window.user_of, strict=True)
        counts = Counter(user for row, user in rows if row == label and (users is None or user in users))
        user = nth(counts, 0)
        if user is None:
            return None
        text = f"{opening} which user has the most instances with the label {window.labels[label]}? {USER_FORM}"
        return question(text, user, "USER", "MOST_FREQ")

    return family


def user_pair(window: Window, draw: Draw, easy: bool) -> Question | None:
    label = draw.choice(window.label_of)
    users = some_users(window, draw, 2, 2)
    if len(users) < 2:
        return None
    rows = zip(window.label_of, window.user_of, strict=True)
    counts = Counter(user for row, user in rows if row == label)
    if counts[users[0]] == counts[users[1]]:
        return None
    text = (
        f"{ALL} which user has more instances with the label {window.labels[label]}: User {users[0]} or User "
        f"{users[1]}? {USER_FORM}"
    )
    return question(text, max(users, key=counts.__getitem__), "USER", "RELATIVE_FREQ")


def ranked_date(rank: int) -> Family:
    how = ("most often", "the second most often")[rank]
    task = ("MOST_FREQ", "SECOND_MOST_FREQ")[rank]

    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        day = nth(Counter(window.date_of), rank)
        if day is None:
            return None
        return question(f"{ALL} which date is represented {how}? {DATE_FORM}", day, "DATE", task)

    return family


def date_exactly(window: Window, draw: Draw, easy: bool) -> Question | None:
    counts = Counter(window.date_of)
    n = counts[draw.choice(window.date_of)]
    times = "1 time" if n == 1 else f"{n} times"
    text = (
        f"{ALL} how many dates are represented exactly {times}? Give your final answer in the form 'Answer: [X]', "
        f"where [X] is the number of dates represented exactly {times}."
    )
    return question(text, sum(c == n for c in counts.values()), "NUMERIC", "REPRESENTED_N_TIMES")


def before_after(window: Window, draw: Draw, easy: bool) -> Question | None:
    label, day = draw.choice(window.label_of), draw.choice(window.date_of)
    rows = list(zip(window.label_of, window.date_of, strict=True))
    of_label = [sum(1 for row, d in rows if row == label and side(d)) for side in sides(day)]
    of_all = [sum(1 for _, d in rows if side(d)) for side in sides(day)]
    readings = set()
    for on_before, on_after in ((0, 0), (1, 0), (0, 1)):
        a, b = of_label[0] + on_before * of_label[1], of_label[2] + on_after * of_label[1]
        all_a, all_b = of_all[0] + on_before * of_all[1], of_all[2] + on_after * of_all[1]
        if not all_a or not all_b:
            return None
        readings |= {more_or_less(a, b), more_or_less(a * all_b, b * all_a)}
    if len(readings) > 1:
        return None
    name, shown = window.labels[label], show_date(day)
    text = (
        f"{ALL} was label '{name}' more common, less common, or the same frequency before {shown}, as compared to "
        f"after {shown}? Give your final answer in the form 'Answer: {name} is [X] before {shown}', where [X] is 'more "
        "common', 'less common', or 'the same frequency'."
    )
    return question(text, readings.pop(), "COMPARISON", "RELATIVE_FREQ")


def sides(day: date) -> tuple[Callable[[date], bool], ...]:
    return (lambda d: d < day, lambda d: d == day, lambda d: d > day)


def by_month(window: Window) -> dict[tuple[int, int], Counter]:
    """(year, month) -> how often each label occurs in it, in the order of time."""
    months: dict[tuple[int, int], Counter] = {}
    for label, day in zip(window.label_of, window.date_of, strict=True):
        months.setdefault((day.year, day.month), Counter())[label] += 1
    return dict(sorted(months.items()))


def first_month(window: Window, draw: Draw, easy: bool) -> Question | None:
    a, b = draw.sample(range(len(window.labels)), 2)
    found = next((m for m, counts in by_month(window).items() if counts[a] > counts[b]), None)
    if found is None:
        return None
    one, other = window.labels[a], window.labels[b]
    text = (
        f"In which month did the label '{one}' first occur more often than the label '{other}'? Give your final answer "
        "in the form 'Answer: [month] [year]', where [month] is the name of the month and [year] is the four-digit "
        f"year where '{one}' first occured more often than '{other}'."
    )
    return question(text, f"{MONTH_NAMES[found[1] - 1]} {found[0]}", "MONTH_YEAR", "RELATIVE_FREQ")


def months_more(window: Window, draw: Draw, easy: bool) -> Question | None:
    a, b = draw.sample(range(len(window.labels)), 2)
    one, other = window.labels[a], window.labels[b]
    text = (
        f"For how many months does the label '{one}' occur more frequently than the label '{other}'? Disregard months "
        "where there is a tie. Count each month of each year. Give your final answer in the form 'Answer: [X]', where "
        f"[X] is the number of months where '{one}' occurs more often than '{other}'."
    )
    answer = sum(counts[a] > counts[b] for counts in by_month(window).values())
    return question(text, answer, "NUMERIC", "RELATIVE_FREQ")


def months_top(window: Window, draw: Draw, easy: bool) -> Question | None:
    label = draw.choice(window.label_of)
    name = window.labels[label]
    text = (
        f"For how many months is the label '{name}' the single most frequently occuring label? Disregard months where "
        "there is a tie for the most common label. Count each month of each year. Give your final answer in the form "
        f"'Answer: [X]', where [X] is the number of months where '{name}' is the most common label."
    )
    answer = sum(nth(counts, 0) == label for counts in by_month(window).values())
    return question(text, answer, "NUMERIC", "MOST_FREQ")


FAMILIES: dict[str, dict[str, Family]] = {
    "counting": {name: over_all(kind) for name, kind in COUNTING.items()},
    "user": {
        "user_most": ranked_user(0, subset=False),
        "user_second": ranked_user(1, subset=False),
        "user_label": user_with_label(subset=False),
        "user_pair": user_pair,
        "subset_user_most": ranked_user(0, subset=True),
        "subset_user_second": ranked_user(1, subset=True),
        "subset_user_label": user_with_label(subset=True),
        **{f"users_{name}": over_users(kind) for name, kind in COUNTING.items()},
    },
    "timeline": {
        "date_most": ranked_date(0),
        "date_second": ranked_date(1),
        "date_exactly": date_exactly,
        "before_after": before_after,
        "first_month": first_month,
        "months_more": months_more,
        "months_top": months_top,
        **{f"month_{name}": over_month(kind) for name, kind in COUNTING.items()},
        **{f"range_{name}": over_range(kind) for name, kind in COUNTING.items()},
    },
}
"""Group (the original's `task_group`) -> name -> family."""

EASY_FAMILIES = ("most_common", "least_common", "compare", "count", "user_label", "users_count", "month_count")
"""The default families of the easy vocabulary: short texts of few patterns."""


def pick_families(
    names: str | Sequence[str] | None, table: dict[str, dict[str, Family]] = FAMILIES
) -> dict[str, tuple[str, Family]]:
    """Name -> (group, family) for names of families or of whole groups of a table. None is all of them.
    Raises ValueError naming what there is."""
    known = {name: (group, family) for group, members in table.items() for name, family in members.items()}
    if names is None:
        names = list(known)
    picked: dict[str, tuple[str, Family]] = {}
    for name in [names] if isinstance(names, str) else names:
        members = table.get(name, [name])
        for member in members:
            if member not in known:
                raise ValueError(
                    f"families: {name!r} does not exist; there are the groups {', '.join(table)} and the families "
                    f"{', '.join(known)}"
                )
            picked[member] = known[member]
    if not picked:
        raise ValueError("families must name at least one family or group")
    return picked
