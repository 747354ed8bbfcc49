"""Scores DeepDive (multi-hop web research): rules for equal answers, a judge's verdict, and measures of a trajectory.

The rules are ours (the original asks a judge about every answer): dates and numbers are compared by value, whatever
their form, names by their words and their known aliases. An answer that lists several dates or numbers matches none.

`official` reads the verdict as DeepDive's reward server does (THUDM/DeepDive, training/reward_server/launch_server.py):
the first `correct: yes` or `correct: no` in any case, blanks allowed before the colon, no emphasis. `strict` reads it
as BrowseComp-Plus does (texttron/BrowseComp-Plus, scripts_evaluation/evaluate_run.py): emphasis allowed, no blank
before the colon. Like the originals, both read `Incorrect: yes` as a yes: prompts must not invite that word. A verdict
that cannot be read is a no.

Not covered: asking the judge (`environments/deepdive_rlm/deepdive_rlm/judge.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import combinations, islice
from typing import Any

MODES = ("official", "strict")
MAX_QUERIES = 300
"""Queries that are compared in pairs; bounds the time. Rollouts stay far below it."""
QUERY_LENGTH = 2000
"""Characters of a query that count; search engines accept fewer."""

OUTPUT_LENGTH = 20_000
"""The answer is searched for in so many last characters of a reply."""
ANSWER_LENGTH = 300
"""Longer answers match nothing."""

FINAL = re.compile(r"\banswer[*_]{0,2}[ \t]{0,3}:[*_ \t]*(\S.*)", re.I)
BOX = re.compile(r"\\boxed\{([^{}]*)\}")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NAME_OF_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
DAY = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
DATES = (
    re.compile(rf"\b{DAY}\s{{1,3}}(?:of\s{{1,3}})?{NAME_OF_MONTH},?\s{{1,3}}(?P<year>[0-9]{{4}})\b"),
    re.compile(rf"\b{NAME_OF_MONTH}\s{{1,3}}{DAY},?\s{{1,3}}(?P<year>[0-9]{{4}})\b"),
    re.compile(r"\b(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})\b"),
)
NUMBER = re.compile(r"[0-9]{1,3}(?:[, \u00a0\u202f][0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?")
UNIT = re.compile(r"[\s%€$£]*[a-z .]{0,40}")
BRACKETS = re.compile(r"\([^()]*\)\s*$")

OFFICIAL_VERDICT = re.compile(r"correct\s*:\s*(yes|no)", re.I)
STRICT_VERDICTS = (
    re.compile(r"\*\*correct:\*\*\s*(yes|no)", re.I),
    re.compile(r"\*\*correct\*\*:\s*(yes|no)", re.I),
    re.compile(r"correct:\s*(yes|no)", re.I),
)
EXTRACTED = re.compile(r"extracted final answer\s*:\s*(.+)", re.I)
WORD = re.compile(r"\w+")


def score(output: Any, gold: str, aliases: Iterable[str] = ()) -> float:
    """1.0 if the final answer of a reply equals the gold answer or one of its aliases, else 0.0. Total."""
    return float(answers_match(extract_answer(output), gold, aliases))


def extract_answer(output: Any) -> str:
    """The rest of the line after the last `Answer:`; else the content of the last box; else the whole text."""
    if not isinstance(output, str):
        return ""
    text = output[-OUTPUT_LENGTH:]
    for pattern in (FINAL, BOX):
        if found := pattern.findall(text):
            return found[-1].strip().strip("*_`").strip()
    return text.strip()


def answers_match(answer: Any, gold: Any, aliases: Iterable[str] = ()) -> bool:
    """True if two answers are the same date, the same number, or the same words apart from case, accents, punctuation,
    a leading article and trailing brackets. Nothing matches an empty answer."""
    if not isinstance(answer, str) or not isinstance(gold, str):
        return False
    if not 0 < len(answer) <= ANSWER_LENGTH:
        return False
    return any(_same(answer, known) for known in (gold, *aliases) if isinstance(known, str) and known.strip())


def _same(answer: str, gold: str) -> bool:
    mine, theirs = _plain(gold), _plain(answer)
    if dates := _dates(mine):
        return len(dates) == 1 and _dates(theirs) == dates
    number = NUMBER.match(mine)
    if number and UNIT.fullmatch(mine[number.end() :]):
        return not _dates(theirs) and _numbers(theirs) == {_value(number[0])}
    words = _words(mine)
    return bool(words) and words in (_words(theirs), _words(BRACKETS.sub("", theirs)))


def _plain(text: str) -> str:
    """Lower case without accents."""
    parts = unicodedata.normalize("NFKD", text[: 4 * ANSWER_LENGTH])
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold().strip()


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+", text.replace("&", " and "))
    return words[1:] if words[:1] in (["the"], ["a"], ["an"]) and len(words) > 1 else words


def _dates(text: str) -> set[tuple[int, int, int]]:
    found = set()
    for pattern in DATES:
        for match in pattern.finditer(text):
            month = match["month"]
            number = int(month) if month.isdigit() else MONTHS.index(month) + 1
            found.add((int(match["year"]), number, int(match["day"])))
    return found


def _numbers(text: str) -> set[Decimal]:
    return {_value(number) for number in NUMBER.findall(text)}


def _value(number: str) -> Decimal:
    return Decimal(re.sub(r"[, \u00a0\u202f]", "", number))


def judge_verdict(judge_text: Any, mode: str = "official") -> bool:
    """True if the judge calls the answer correct. Raises ValueError for an unknown mode, and nothing else."""
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if not isinstance(judge_text, str):
        return False
    for pattern in STRICT_VERDICTS if mode == "strict" else (OFFICIAL_VERDICT,):
        if match := pattern.search(judge_text):
            return match[1].lower() == "yes"
    return False


def judge_extracted(judge_text: Any) -> str:
    """The answer that the judge extracted from the response (official form); empty if it names none."""
    match = EXTRACTED.search(judge_text) if isinstance(judge_text, str) else None
    return match[1].strip() if match else ""


def trajectory_is_valid(data: Any, response: Any) -> bool:
    """DeepDive's format check, a condition of any reward: the trajectory is finished, no tool call was invalid or
    malformed, and there is a response. `data` holds the flags `task_unfinished`, `format_valid`,
    `invalid_tool_call` and `malformed_tool_call`; an absent one counts as fine."""
    if not isinstance(data, Mapping) or not isinstance(response, str) or not response.strip():
        return False
    if data.get("task_unfinished") or data.get("format_valid") is False:
        return False
    return not (data.get("invalid_tool_call") or data.get("malformed_tool_call"))


def redundancy(queries: Any) -> float:
    """How alike the search queries of a rollout are, in [0, 1]: the mean Jaccard similarity of their sets of lower-case
    words, over all pairs of queries.

    Empty queries are left out, as in the original. 0.0 for fewer than two queries; two queries without any word (`!`,
    `?`) have similarity 0. Only the first 300 queries count, and the first 2,000 characters of each."""
    if not isinstance(queries, Iterable) or isinstance(queries, str | bytes):
        return 0.0
    texts = list(islice((q for q in queries if isinstance(q, str) and q.strip()), MAX_QUERIES))
    if len(texts) < 2:
        return 0.0
    times = Counter(frozenset(WORD.findall(text[:QUERY_LENGTH].lower())) for text in texts)
    total = float(sum(n * (n - 1) // 2 for words, n in times.items() if words))
    for (one, n), (other, m) in combinations(times.items(), 2):
        both = len(one & other)
        if both:
            total += n * m * both / (len(one) + len(other) - both)
    return min(1.0, total / (len(texts) * (len(texts) - 1) / 2))
