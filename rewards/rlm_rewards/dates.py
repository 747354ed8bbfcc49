"""Parses calendar dates in the forms that people and Python write.

Understands English month names, ISO, `str()` and `repr()` of date objects, and a year and month without a day. A date
whose day and month could be swapped (`03/04/2024`) is not read. Not covered: other languages; years in words; times of
day other than midnight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
UNITS = re.findall(
    "[a-z]+", "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
)
TEENS = re.findall("[a-z]+", "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth")
ORDINALS = {
    word: day
    for day, word in enumerate(
        [*UNITS, *TEENS, *(f"twenty-{unit}" for unit in UNITS[:9]), "thirtieth", "thirty-first"], start=1
    )
}
DAY = rf"\b(?P<day>[0-9]{{1,2}}(?:st|nd|rd|th)?|{'|'.join(sorted(ORDINALS, key=len, reverse=True))})"
YEAR = r"(?P<year>[0-9]{4})(?![0-9])"
GAP = r"[\s,]{1,3}"
MIDNIGHT = r"(?:[t ]00:00(?::00(?:\.0+)?)?(?:z|\+00:?00)?(?![0-9:]))?"
FORMS = tuple(
    re.compile(form)
    for form in (
        rf"{DAY}(?:{GAP}|-)(?:of\s{{1,3}})?{MONTH}(?:{GAP}|-)(?:of\s{{1,3}})?{YEAR}",
        rf"\b{MONTH}{GAP}(?:the\s{{1,3}})?{DAY}{GAP}{YEAR}",
        rf"\b{YEAR}(?:{GAP}|-){MONTH}(?:{GAP}|-){DAY}\b",
        rf"(?<![0-9./-]){YEAR}([-/.])(?P<month>[0-9]{{1,2}})\2(?P<day>[0-9]{{1,2}})(?![0-9/-]|\.[0-9]){MIDNIGHT}",
        rf"(?<![0-9./-])(?P<one>[0-9]{{1,2}})([-/.])(?P<two>[0-9]{{1,2}})\2{YEAR}(?![/-]|\.[0-9])",
        r"\b(?:datetime\.)?(?:date|datetime|timestamp)\((?P<year>[0-9]{4}), ?(?P<month>[0-9]{1,2}), ?"
        r"(?P<day>[0-9]{1,2})(?:, 0)*\)",
        rf"\b{MONTH}{GAP}(?:of\s{{1,3}})?{YEAR}",
        rf"(?<![0-9./-]){YEAR}-(?P<month>[0-9]{{2}})(?![0-9/-]|\.[0-9])",
    )
)


class Date(NamedTuple):
    """`day` is None where only the month is named."""

    year: int
    month: int
    day: int | None


class Found(NamedTuple):
    date: Date
    start: int
    end: int


def find_dates(text: str) -> list[Found]:
    """The dates in a lower-case text, in order; of two readings of one place the fuller one."""
    found: list[Found] = []
    for form in FORMS:
        for match in form.finditer(text):
            free = all(match.end() <= other.start or other.end <= match.start() for other in found)
            if free and (date := _date(match)) is not None:
                found.append(Found(date, match.start(), match.end()))
    return sorted(found, key=lambda one: one.start)


def _date(match: re.Match[str]) -> Date | None:
    parts = match.groupdict()
    if "one" in parts:
        one, two = int(parts["one"]), int(parts["two"])
        # 13/04 can only be a day and a month; dots are written by those who name the day first.
        days = [(d, m) for d, m in _orders(one, two, match[2]) if 1 <= d <= 31 and 1 <= m <= 12]
        if len(set(days)) != 1:
            return None
        day, month = days[0]
        return Date(int(parts["year"]), month, day)
    month = int(parts["month"]) if parts["month"].isdigit() else MONTHS.index(parts["month"][:3]) + 1
    named = parts.get("day")
    day = None if named is None else ORDINALS.get(named) or int(re.sub("[a-z]+", "", named))
    if not 1 <= month <= 12 or (day is not None and not 1 <= day <= 31):
        return None
    return Date(int(parts["year"]), month, day)


def _orders(one: int, two: int, separator: str) -> Iterator[tuple[int, int]]:
    """(day, month) in the orders that the separator allows."""
    yield one, two
    if separator != ".":
        yield two, one
