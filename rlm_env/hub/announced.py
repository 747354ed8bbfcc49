"""Places in a text that announce a right answer: behind a word such as `answer`, in a line `total: 42`, at the end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

LABELS = frozenset(
    {
        *("answer", "answers", "correct", "correct_answer", "expected", "expected_answer", "gold", "ground_truth"),
        *("groundtruth", "label", "perfect_answer", "reference", "solution", "target", "truth"),
    }
)
"""Names of fields that announce a right answer."""
STEMS = ("answer", "correct", "expected", "gold", "label", "reference", "solution", "target", "truth")
"""Words that announce one, also as part of another word."""
BEFORE = 60
"""Characters before an answer that are looked at."""
MOST = 20_000
"""Occurrences of an answer in one text that are looked at."""
_ANNOUNCED = re.compile(rf"({'|'.join(STEMS)})[a-z_]*\W{{1,8}}(?:\w{{1,8}}\W{{1,4}})?$", re.IGNORECASE)
_LABEL = re.compile(r"^[^\w\n]{0,8}(\w[\w -]{0,40}?)[^\w\n]{0,4}[:=][^\w\n]{0,4}$")
_REST = re.compile(r"[^\w\n]*(?:\n|$)")


def whole_words(form: str, text: str) -> Iterator[re.Match[str]]:
    """The places in a text where `form` stands, and not as a part of a longer word or number."""
    return re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", text)


def announcements(text: str, forms: Iterable[str]) -> Iterator[str]:
    """The places at which one of these forms of an answer is announced, in words. A word that announces other things
    in the same text too is none."""
    lines = text.strip().splitlines()
    for name, line in (("first", lines[0]), ("last", lines[-1])) if len(lines) > 1 else ():
        if any(_ends_with(line, form) for form in forms):
            yield f"the {name} line"
    for form in forms:
        for count, found in enumerate(whole_words(form, text)):
            if count == MOST:
                break
            if place := _announcement(text, found.start(), form):
                yield place


def _announcement(text: str, at: int, form: str) -> str | None:
    """How the form at this place is announced; None if it is not."""
    before = text[max(0, at - BEFORE) : at]
    line = before.rpartition("\n")[2]
    label = _LABEL.match(line) if _REST.match(text, at + len(form)) else None
    word = None if label else _ANNOUNCED.search(before)
    if label is None and word is None:
        return None
    announcing = line if word is None else before[max(0, word.start() - 1) :]
    if text.count(announcing) > text.count(announcing + form):
        return None
    return f"the line '{label[1].lower()}:'" if label else f"what follows '{word[1].lower()}'" if word else None


def _ends_with(line: str, form: str) -> bool:
    line = line.strip().rstrip(".")
    return line == form or (line.endswith(form) and not line[-len(form) - 1].isalnum())
