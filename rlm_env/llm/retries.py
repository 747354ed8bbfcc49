"""When a failed request is sent again, and after how many seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRIED_STATUS = frozenset({408, 409, 424, 425, 429, 499, 500, 502, 503, 504, 509, *range(520, 531), 598, 599})
"""424: the model failed behind a gateway. 499, 598, 599: a proxy lost the engine. 520 to 530: a content delivery
network could not reach the engine, or the engine is overloaded (529)."""
LONGEST_WAIT = 30.0
"""Upper limit of the seconds between two tries where the endpoint names none."""
LONGEST_RETRY_AFTER = 120.0
"""Upper limit of the seconds that an endpoint can ask for."""
QUOTA = re.compile(
    r"insufficient[_ ](?:quota|credits?|balance|funds)|exceeded your current quota|billing|out of credits|balance is"
    r"|(?:used all|have any)[^.]{0,20}credits|spending limit|overdue|arrear|credit limit|key limit exceeded"
    r"|余额不足|欠费",
    re.I,
)
"""Words of a refusal because the account is empty."""
TOO_LARGE = re.compile(r"request too large", re.I)
"""One request is over the limit of a minute."""
WAIT_IN_WORDS = re.compile(
    r"(?:(?:try|retry)(?: again| your request)?|wait|retry_?delay\W*) ?(?:in|after|for|of|at least)?:? ?"
    r"(?:(?P<minutes>\d+) ?m(?:in(?:utes?)?)? ?(?=\d))?"
    r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>ms|milliseconds?|s|seconds?|minutes?)\b",
    re.I,
)
"""The wait that a refusal asks for in words: "Please try again in 1m26.4s", "retryDelay 34s"."""


def is_passing(status: int, words: str) -> bool:
    """Whether the same request may succeed later. Some providers call the limit of a minute a quota, and say how long
    to wait."""
    if status != 429:
        return status in RETRIED_STATUS
    if TOO_LARGE.search(words):
        return False
    return not QUOTA.search(words) or 0 < wait_in_words(words) <= LONGEST_RETRY_AFTER


def wait_in_words(words: str) -> float:
    """Seconds that the words of a refusal ask to wait; 0 where they ask for nothing."""
    told = WAIT_IN_WORDS.search(words)
    if told is None:
        return 0.0
    unit = told["unit"].lower()
    factor = 0.001 if unit.startswith(("ms", "milli")) else 60.0 if unit.startswith("m") else 1.0
    return 60.0 * int(told["minutes"] or 0) + factor * float(told["number"])


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the endpoint asks to wait, from `retry-after-ms` or `Retry-After` (seconds or a date); 0 where it
    asks for nothing."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is None:
        then = _date(value)
        # Compared with the server's own clock, which may differ from ours.
        seconds = then - (_date(headers.get("Date")) or time.time()) if then is not None else 0.0
    return _bounded(seconds)


def _bounded(seconds: float) -> float:
    """Seconds between 0 and the longest wait that an endpoint can ask for."""
    return min(LONGEST_RETRY_AFTER, max(0.0, seconds)) if seconds == seconds else 0.0


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
