"""Parses a question into the selection of lines and the quantity that it asks for.

Understands those wordings of Oolong that tiny-rlm's teachers can solve. Any selection goes with any quantity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Quantity = Literal["count", "compare", "most", "least", "user"]

_USER = re.compile(r"associated with user IDs (\d+)\.")
_MONTH = re.compile(r"occur in ([A-Z][a-z]+) of any year\.")
_QUANTITIES: dict[Quantity, re.Pattern[str]] = {
    "count": re.compile(r"how many data points should be classified as label '([^']+)'\?"),
    "compare": re.compile(r"is label '([^']+)' more common, .* as label '([^']+)'\?"),
    "most": re.compile(r"which of the labels is the most common\?.* one of the labels: ([^.]+)\."),
    "least": re.compile(r"which of the labels is the least common\?.* one of the labels: ([^.]+)\."),
    "user": re.compile(r"which user has the most instances with the label ([^?]+)\?"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """The parts of a question that a program needs."""

    quantity: Quantity
    labels: tuple[str, ...]
    """`count`, `user`: the label asked about; `compare`: both labels; `most`, `least`: all candidates."""
    mark: str
    """A string that occurs in exactly the selected lines."""

    @property
    def selects(self) -> bool:
        """True if the question is about only some of the lines."""
        return self.mark != "User: "


def read_question(text: str) -> Question:
    """Raises ValueError for a question that is not understood."""
    mark = "User: "
    if user := _USER.search(text):
        mark = f"User: {user[1]} "
    elif month := _MONTH.search(text):
        mark = f"Date: {month[1][:3]}"
    for quantity, pattern in _QUANTITIES.items():
        if found := pattern.search(text):
            labels = found.groups() if quantity == "compare" else tuple(found[1].split(", "))
            return Question(quantity, labels, mark)
    raise ValueError(f"no teacher understands this question: {text}")
