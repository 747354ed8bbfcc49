"""Oolong-Pairs: questions whose answer is a list of pairs of users, which grows with the square of the context.

The forms are those of the RLM paper (arXiv:2512.24601, appendix on OOLONG-Pairs): both users meet one condition, or one
user meets one and the other another, in numbers of instances of labels (at least, exactly) and dates. There the numbers
are 1 and 2; here they are those of a user of the window, so that a question stays selective in windows of any length.
A question is asked where at least one pair meets it and at most `MAX_SHARE` of all pairs do: listing all of them then
earns little, and no gold is empty.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from oolong_rlm.questions import MONTH_NAMES, Family, Question
from oolong_rlm.window import Window
from rlm_env.authoring.draw import Draw

MAX_SHARE = 0.4
"""Largest share of all pairs of users that may be right; listing all pairs then has an F1 of at most 0.57."""
FORM = "List all of them in the form (user_id_1, user_id_2), one pair per line."
PAIRS = "In the above data, list all pairs of user IDs (no duplicate pairs, lower ID first)"


@dataclass(frozen=True)
class Need:
    """A number of instances of a label."""

    label: str
    n: int = 1
    exactly: bool = False

    def __str__(self) -> str:
        noun = "instance" if self.n == 1 else "instances"
        return f"{'exactly' if self.exactly else 'at least'} {self.n} {noun} with the label '{self.label}'"

    def met(self, user: User) -> bool:
        count = user.count[self.label]
        return count == self.n if self.exactly else count >= self.n


def long_date(day: date) -> str:
    """January 6, 2023."""
    return f"{MONTH_NAMES[day.month - 1]} {day.day}, {day.year}"


@dataclass(frozen=True)
class Dated:
    """All instances of a label are on one side of a day, which belongs to neither side. No instances count as all."""

    label: str
    side: Literal["after", "before"]
    day: date

    def __str__(self) -> str:
        return f"all instances with the label '{self.label}' of both users are {self.side} {long_date(self.day)}"

    def met(self, user: User) -> bool:
        if not user.count[self.label]:
            return True
        return user.first[self.label] > self.day if self.side == "after" else user.last[self.label] < self.day


@dataclass(frozen=True)
class Role:
    """The condition on a user: all needs are met, or any of them, and so is the date."""

    needs: tuple[Need, ...]
    dated: Dated | None = None
    any_of: bool = False

    def __str__(self) -> str:
        return (" or " if self.any_of else " and ").join(map(str, self.needs))

    def met(self, user: User) -> bool:
        enough = (any if self.any_of else all)(need.met(user) for need in self.needs)
        return enough and (self.dated is None or self.dated.met(user))


class User:
    """A user's instances, by label: how many, the first and the last day."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.first: dict[str, date] = {}
        self.last: dict[str, date] = {}

    def add(self, label: str, day: date) -> None:
        self.count[label] += 1
        self.first[label] = min(day, self.first.get(label, day))
        self.last[label] = max(day, self.last.get(label, day))


def gather(rows: Iterable[tuple[date, int, str]]) -> dict[int, User]:
    """User id -> instances, in the order of ids, as `Pairs` wants them. Rows are (day, user, label)."""
    users: dict[int, User] = {}
    for day, user, label in rows:
        users.setdefault(user, User()).add(label, day)
    return dict(sorted(users.items()))


class Pairs:
    """The pairs of which both users meet `one`, or one user `one` and the other `other`; a user who meets both may be
    either. They are never held all at once."""

    def __init__(self, users: dict[int, User], one: Role, other: Role | None = None) -> None:
        self._first = [id for id, user in users.items() if one.met(user)]
        self._second = self._first if other is None else [id for id, user in users.items() if other.met(user)]
        self._both = sorted(set(self._first) & set(self._second))

    def __len__(self) -> int:
        both = len(self._both)
        return len(self._first) * len(self._second) - both - both * (both - 1) // 2

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """(lower id, all higher ids that go with it), in order."""
        first, second, both = map(set, (self._first, self._second, self._both))
        either = sorted(first | second)
        for id in either:
            partners = either if id in both else self._second if id in first else self._first
            higher = partners[bisect_right(partners, id) :]
            if higher:
                yield id, higher

    def __str__(self) -> str:
        """A gold: `(lower id, higher id)`, one a line."""
        return "\n".join(f"({id}, " + f")\n({id}, ".join(map(str, higher)) + ")" for id, higher in self)


NEED = re.compile(r"(at least|exactly) (\d+) instances? with the label '([^']+)'")
DATED = re.compile(r"all instances with the label '([^']+)' of both users are (after|before) (\w+) (\d+), (\d+)")


def read_roles(text: str) -> tuple[Role, Role | None]:
    """The conditions of a generated question, parsed from its text. Raises ValueError for any other text."""
    condition, *other = text.partition(FORM)[0].partition(", and all instances")[0].split(", and the other user has ")
    needs, *others = (
        tuple(Need(label, int(n), how == "exactly") for how, n, label in NEED.findall(part))
        for part in (condition, *other)
    )
    if not needs:
        raise ValueError(f"no generated question about pairs: {text[:200]!r}")
    found = DATED.search(text)
    day = found and date(int(found[5]), MONTH_NAMES.index(found[3]) + 1, int(found[4]))
    dated = Dated(found[1], found[2], day) if found else None
    return Role(needs, dated, any_of=" or " in condition), Role(others[0]) if others else None


def some_need(users: Sequence[User], labels: Sequence[str], draw: Draw, exactly: bool = False) -> Need | None:
    """A need with the number of a user of the window; None where that user has no instance of the label."""
    label = draw.choice(labels)
    n = draw.choice(users).count[label]
    return Need(label, n, exactly) if n else None


def some_dated(users: Sequence[User], labels: Sequence[str], draw: Draw) -> Dated | None:
    """A day that is a user's first (after it) or last (before it) with that label."""
    label, side = draw.choice(labels), draw.choice(("after", "before"))
    user = draw.choice(users)
    days = user.first if side == "after" else user.last
    return Dated(label, side, days[label]) if label in days else None


def both(either: bool, dated: bool) -> Family:
    """Both users have at least so many instances of a label, or of one of two, and those of a label only after (or
    before) a day."""

    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        table = users_of(window)
        users, labels = list(table.values()), draw.sample(window.labels, 2)
        needs = [some_need(users, [label], draw) for label in labels[: 1 + either]]
        when = some_dated(users, labels, draw) if dated else None
        if None in needs or (dated and when is None):
            return None
        role = Role(tuple(needs), when, any_of=either)
        since = "" if when is None else f", and {when} (a user without any meets this)"
        return pairs_question(table, f"{PAIRS} where both users have {role}{since}. {FORM}", role)

    return family


def one_and_other(exactly: bool) -> Family:
    """One user has at least so many instances of a label (or of each of two), the other at least, or exactly, so many
    of a label."""

    def family(window: Window, draw: Draw, easy: bool) -> Question | None:
        table = users_of(window)
        users = list(table.values())
        labels = draw.sample(window.labels, draw.between(1, 2))
        needs = [some_need(users, [label], draw) for label in labels]
        last = some_need(users, window.labels, draw, exactly)
        if None in needs or last is None:
            return None
        role, other = Role(tuple(needs)), Role((last,))
        text = f"{PAIRS} such that one user has {role}, and the other user has {other}. {FORM}"
        return pairs_question(table, text, role, other)

    return family


def users_of(window: Window) -> dict[int, User]:
    labels = [window.labels[label] for label in window.label_of]
    return gather(zip(window.date_of, window.user_of, labels, strict=True))


def pairs_question(users: dict[int, User], text: str, one: Role, other: Role | None = None) -> Question | None:
    """The question, or None if no pair answers it or more than `MAX_SHARE` of all pairs do."""
    found = Pairs(users, one, other)
    if not 0 < len(found) <= MAX_SHARE * len(users) * (len(users) - 1) / 2:
        return None
    return Question(text, str(found), "PAIRS", "BOTH" if other is None else "ONE_AND_OTHER")


PAIR_FAMILIES: dict[str, dict[str, Family]] = {
    "pairs": {
        "both": both(either=False, dated=False),
        "both_either": both(either=True, dated=False),
        "both_dated": both(either=False, dated=True),
        "both_either_dated": both(either=True, dated=True),
        "one_and_other": one_and_other(exactly=False),
        "one_and_other_exactly": one_and_other(exactly=True),
    }
}
"""Group -> name -> family, as `questions.FAMILIES`."""
