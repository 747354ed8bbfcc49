"""When a failed request is sent again, and after how many seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531)})
"""520 to 530: a content delivery network could not reach the engine, or the engine is overloaded (529)."""
LONGEST_WAIT = 30.0
"""Upper limit of the seconds between two tries where the endpoint names none."""
LONGEST_RETRY_AFTER = 120.0
"""Upper limit of the seconds that an endpoint can ask for."""
NEVER_PASSES = re.compile(
    r"insufficient[_ ](?:quota|credits?|balance|funds)|exceeded your current quota|request too large|billing", re.I
)
"""Words of a refusal that waiting does not cure: the account is empty, or one request is over the limit of a minute."""


def is_passing(status: int, words: str) -> bool:
    """Whether the same request may succeed later."""
    return status in RETRIED_STATUS and not (status == 429 and NEVER_PASSES.search(words))


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
