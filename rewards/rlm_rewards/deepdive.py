"""Scores DeepDive (multi-hop web research): rules for equal answers, a judge's verdict, and measures of a trajectory.

The rules are ours (the original asks a judge about every answer): dates and amounts are compared by value, whatever
their form, names by their words and their known aliases. The rules accept only what is certainly equal: sign, scale,
unit, currency and the signs that tell names apart (`C++`, `C#`) must agree, and an answer that lists several dates or
numbers matches none. Everything else is undecided and goes to the judge, if there is one.

`official` reads the verdict as DeepDive's reward server does (THUDM/DeepDive, training/reward_server/launch_server.py):
the first `correct: yes` or `correct: no` in any case, blanks allowed before the colon, no emphasis; `Incorrect: yes` is
a yes. `strict` is ours. It wants `correct` and `yes` or `no` as whole words, in any emphasis, quotes or JSON. What
offers both (`yes/no`), takes itself back (`yes, but no`), states a condition or asks is no verdict; statements that
begin a line count before others; two that contradict each other are none. A verdict that cannot be read is a no.

Not covered: asking the judge (`environments/deepdive_rlm/deepdive_rlm/judge.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from rlm_rewards.dates import Found, find_dates
from rlm_rewards.final_answer import TAGGED, json_object
from rlm_rewards.quantities import FILLERS, HEDGES, Quantity, find_quantities, plain_text

MODES = ("official", "strict")
MAX_QUERIES = 300
"""Queries that are compared in pairs; bounds the time. Rollouts stay far below it."""
QUERY_LENGTH = 2000
"""Characters of a query that count; search engines accept fewer."""

OUTPUT_LENGTH = 20_000
"""The answer is searched for in so many last characters of a reply."""
SHORT_UNIT = 3
"""Letters of a unit whose case matters."""
ANSWER_LENGTH = 300
"""Longer answers match nothing."""

FINAL = re.compile(r"\banswer[*_`\"']{0,3}[ \t]{0,3}:[*_ \t]*(?:\r?\n[*_ \t]*){0,3}(\S.*)", re.I)
BOX = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
LATEX = ((re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}"), r"\1"), (re.compile(r"\\([$%&#_ ])"), r"\1"))
UNIT_ASKED = re.compile(r"\bhow many ([a-z]+)", re.I)
BRACKETS = re.compile(r"\((?!(?:or|not|no|maybe|possibly|perhaps)\b)[^()?]*\)\s*$")
EMPHASIS = re.compile(r"\*\*(.+?)\*\*|__(.+?)__|`([^`]+)`")
TOKEN = re.compile(r"[0-9]+(?:[.,:/'-][0-9]+)*|\w+|[^\w\s]")
LETTER_RUN = re.compile(r"[^\W\d_]+")
PUNCTUATION = set(".,;:!?'\"()[]{}…«»“”„‘’`_¿¡·•|\\™®©")
"""Marks that can be left out of a name. Signs that make it another name (`C++`, `C#`, `A*`) are not among them."""
OFFICIAL_VERDICT = re.compile(r"correct\s*:\s*(yes|no)", re.I)
STRICT_VERDICT = re.compile(
    r"(?<![^\W_])(?<![^\W_][_-])(?<!not )(?<!n't )"
    r"correct[*_`\"'”’]{0,3}\s{0,20}[:：][\s*_`\"'“‘”’]{0,20}(yes|no)(?![^\W_]|-|_\w)",
    re.I,
)
VERDICT_LEAD = re.compile(r"[\s>#*_`\"'“‘{(\[+•-]*(?:\d{1,2}[.)][\s*_`]*)?")
"""What may stand before a verdict at the beginning of a line."""
NO_VERDICT = {
    word: re.compile(
        r"[*_`\"'”’)\s]*\?"
        rf"|[*_`\"'”’ \t]*[,;]?[ \t]*(?:[/|]|\b(?:or|and|but)\b)[^\w\n]*{other}\b"
        r"|[*_`\"'”’ \t]*,?[ \t]*(?:if|when|unless|only if|provided)\b"
        rf"|[^\n]{{0,80}}?\b{other}\b[*_`]*[ \t]*(?:[.,;:!?)]|$)",
        re.I | re.M,
    )
    for word, other in (("yes", "no"), ("no", "yes"))
}
"""What follows each word where it is no verdict: a question mark, the other word, a condition."""
LEAD_CHARS = 40
EXTRACTED = re.compile(r"extracted final answer\s*:\s*(.+)", re.I)
WORD = re.compile(r"\w+")


def score(output: Any, gold: str, aliases: Iterable[str] = (), question: str = "") -> float:
    """1.0 if the final answer of a reply certainly equals the gold answer or one of its aliases, else 0.0. Total.

    If the gold is a bare number, the answer may add the unit that the question asks for (`how many kilometres`).
    """
    known = [gold, *aliases]
    if asked := UNIT_ASKED.findall(question):
        known += [f"{number} {asked[-1]}" for number in known if isinstance(number, str) and number[-1:].isdigit()]
    return float(answers_match(extract_answer(output), gold, known))


def extract_answer(output: Any) -> str:
    """The text after the last `Answer:`, on the same line or the next non-empty one; else the content of the last
    `<answer>` tag or box; else the whole text."""
    if not isinstance(output, str):
        return ""
    text = output[-OUTPUT_LENGTH:].strip()
    if (inside := _json_answer(text)) is not None:
        return inside
    line = None
    for line in FINAL.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    if line is not None:
        return _bare(line[1], text[text.rfind("\n", 0, line.start()) + 1 : line.start(1)])
    for pattern in (TAGGED, BOX):
        if found := pattern.findall(text):
            return _bare(found[-1])
    return text


def _json_answer(text: str) -> str | None:
    """The answer in a text that is one JSON object with the key `answer`, `final_answer` or `final answer`."""
    found = json_object(text) or {}
    for key in ("answer", "final_answer", "final answer"):
        if isinstance(value := found.get(key), str | int | float) and not isinstance(value, bool):
            return str(value).strip()
    return None


def _bare(text: str, before: str = "") -> str:
    """The answer without surrounding tags and emphasis. A star that belongs to it stays: `Sagittarius A*`."""
    text = text.strip()
    if tagged := TAGGED.fullmatch(text):
        text = tagged[1].strip()
    for mark in "*_":
        if text.endswith(mark * 2):
            text, before = text[:-2].rstrip(), before + mark * 2
        if text.endswith(mark) and (before + text[:-1]).count(mark) % 2:
            text = text[:-1].rstrip()
    return re.sub(r"^(?:\*\*|__)(?=\S)", "", text) if text.count("**") == 1 or text.count("__") == 1 else text


def answers_match(answer: Any, gold: Any, aliases: Iterable[str] = ()) -> bool:
    """True if two answers are certainly the same date, the same amount, or the same words apart from case, accents,
    punctuation, a leading article and trailing brackets. False means "different or unsure". Nothing matches an empty
    answer."""
    if not isinstance(answer, str) or not isinstance(gold, str):
        return False
    if not 0 < len(answer) <= ANSWER_LENGTH:
        return False
    return any(_same(answer, known) for known in (gold, *aliases) if isinstance(known, str) and known.strip())


def _same(answer: str, gold: str) -> bool:
    mine, theirs = _plain(gold[: 4 * ANSWER_LENGTH]), _plain(answer)
    amounts = [find_quantities(text) for text in (mine, theirs)]
    if all(len(found) == 1 for found in amounts) and not _same_measure(*amounts[0], *amounts[1]):
        return False
    words = _words(mine)
    if words and words in (_words(theirs), _words(BRACKETS.sub("", theirs))):
        return True
    return _same_date(mine, theirs) or _same_amount(mine, theirs)


def _same_measure(one: Quantity, other: Quantity) -> bool:
    """True if value and unit are equal. The case of short unknown units matters (`MW`, `mW`)."""
    nouns = [found.noun if len(found.noun) <= SHORT_UNIT else "" for found in (one, other)]
    unit = nouns[0] == nouns[1] or nouns[0].lower() != nouns[1].lower()
    return unit and one.value == other.value and one.dimension == other.dimension


def _plain(text: str) -> str:
    """Without LaTeX, emphasis and accents; one sort of dash and of digits."""
    for pattern, plain in LATEX:
        text = pattern.sub(plain, text)
    text = EMPHASIS.sub(lambda found: found[1] or found[2] or found[3], text)
    kept: list[str] = []
    for char in unicodedata.normalize("NFD", plain_text(text)):
        # A stroke through a sign makes another sign of it, an accent on a letter does not.
        if not unicodedata.combining(char) or not kept or not kept[-1].isalpha():
            kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept)).strip()


def _words(text: str) -> list[str]:
    """Words, numbers and the signs that tell names apart, in lower case, without an article at the beginning."""
    text = text.casefold().replace("&", " and ")
    words = [match[0] for match in TOKEN.finditer(text) if not _is_punctuation(text, match)]
    return words[1:] if words[:1] in (["the"], ["a"], ["an"]) and len(words) > 1 else words


def _is_punctuation(text: str, token: re.Match[str]) -> bool:
    """True if the token is a mark that can be left out of a name at this place."""
    before, after = text[: token.start()][-1:], text[token.end() :][:1]
    if token[0] == ".":
        return not after.isalnum() or before.isalnum()  # .NET
    if token[0] == "-":  # a sign (-5, A-) is not a hyphen (Jean-Luc) or a dash
        return (before.isalnum() and after.isalnum()) or (not before.strip() and not after.strip())
    if token[0] == "/":
        return before.isalpha() and after.isalpha()
    return token[0] in PUNCTUATION


def _same_date(gold: str, answer: str) -> bool:
    known, said = find_dates(gold.lower()), find_dates(answer.lower())
    if len(known) != 1 or not said or {one.date for one in said} != {known[0].date}:
        return False
    return _only(FILLERS, gold, known) and _none_of(HEDGES, answer, said)


def _same_amount(gold: str, answer: str) -> bool:
    if find_dates(answer.lower()):
        return False
    known, said = find_quantities(gold), find_quantities(answer)
    if len(known) != 1 or not said:
        return False
    nouns = {one.noun.lower().removesuffix("s") for one in said}
    if known[0].noun and nouns != {known[0].noun.lower().removesuffix("s")}:
        return False  # `12 Monkeys` is no number
    return (
        all(_same_measure(one, known[0]) for one in said)
        and _only(FILLERS, gold, known)
        and _none_of(HEDGES, answer, said, nouns)
    )


def _outside(text: str, found: Sequence[Found | Quantity]) -> str:
    """The text without its dates or amounts."""
    pieces, at = [], 0
    for one in found:
        pieces.append(text[at : one.start])
        at = one.end
    return " ".join([*pieces, text[at:]])


def _only(allowed: frozenset[str], text: str, found: Sequence[Found | Quantity]) -> bool:
    """True if the rest of the text is these words and punctuation."""
    rest = _outside(text, found).lower()
    return not _signs(rest) and set(LETTER_RUN.findall(rest)) <= allowed


def _none_of(refused: frozenset[str], text: str, found: Sequence[Found | Quantity], nouns: Iterable[str] = ()) -> bool:
    """True if neither the rest of the text nor the nouns contain one of these words, a number or a sign."""
    rest = " ".join([_outside(text, found).lower(), *nouns])
    return not _signs(rest) and not refused.intersection(LETTER_RUN.findall(rest))


def _signs(rest: str) -> bool:
    """True if there are digits, or signs other than punctuation."""
    return any(
        char.isdigit() or not (char.isalpha() or char.isspace() or char in PUNCTUATION or char in "~≈=-")
        for char in rest
    )


def judge_verdict(judge_text: Any, mode: str = "official") -> bool:
    """True if the judge calls the answer correct. Raises ValueError for an unknown mode, and nothing else."""
    return bool(_verdict(judge_text, mode))


def judge_has_verdict(judge_text: Any, mode: str = "official") -> bool:
    """False if the judge's text says neither yes nor no. Raises ValueError for an unknown mode, and nothing else."""
    return _verdict(judge_text, mode) is not None


def _verdict(judge_text: Any, mode: str) -> bool | None:
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if not isinstance(judge_text, str):
        return None
    if mode == "strict":
        return _strict_verdict(judge_text)
    match = OFFICIAL_VERDICT.search(judge_text)
    return None if match is None else match[1].lower() == "yes"


def _strict_verdict(judge_text: str) -> bool | None:
    """What the statements of a judge agree on: those that begin a line, else the others; None if there is no such
    thing."""
    leading, others = set(), set()
    for found in STRICT_VERDICT.finditer(judge_text):
        if NO_VERDICT[found[1].lower()].match(judge_text, found.end()):
            continue
        before = "\n" * (found.start() <= LEAD_CHARS) + judge_text[max(0, found.start() - LEAD_CHARS) : found.start()]
        _, line_begins, lead = before.rpartition("\n")
        begins = line_begins and VERDICT_LEAD.fullmatch(lead)
        (leading if begins else others).add(found[1].lower() == "yes")
    said = leading or others
    return said.pop() if len(said) == 1 else None


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

    Queries without a word are left out, as in the original; 0.0 for fewer than two others. Only the first 300 of them
    count, and the first 2,000 characters of each."""
    if not isinstance(queries, Iterable) or isinstance(queries, str | bytes):
        return 0.0
    words = (frozenset(WORD.findall(query[:QUERY_LENGTH].lower())) for query in queries if isinstance(query, str))
    times = Counter(islice((one for one in words if one), MAX_QUERIES))
    count = times.total()
    if count < 2:
        return 0.0
    total = float(sum(n * (n - 1) // 2 for n in times.values()))
    for (one, n), (other, m) in combinations(times.items(), 2):
        both = len(one & other)
        if both:
            total += n * m * both / (len(one) + len(other) - both)
    return min(1.0, total / (count * (count - 1) / 2))
