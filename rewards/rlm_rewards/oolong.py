"""Scores answers of the Oolong benchmark, synth and real, and computes the F1 over pairs of Oolong-Pairs.

`official` equals the benchmark's own scorer (abertsch72/oolong, src/eval/eval_helpers.py), quirks included: the text
after the last colon, case-sensitive labels, 0.75 ** |difference| for counts, the first \\boxed{} of an answer about
transcripts, no penalty for extra items of a list. Where that scorer raises, the score is 0.

`strict` is ours: an answer scores only if it is right and says nothing else.
- the answer is the last line of the form `Label:|Answer:|User:|Date: value`, or the whole text if that is a single line
  without such a key; for real it is the last \\boxed{} (braces balanced), or the whole text if there is none;
- blanks, quotes, backquotes, `*`, `[]`, `$` around it and one final period are stripped;
- labels, strings and month-years are compared ignoring case and runs of blanks, numbers and users as whole numbers
  (`1,234` is one): right or wrong, no partial credit;
- a comparison must hold exactly one of the three phrases and no "not";
- dates are MM/DD/YYYY, YYYY-MM-DD or written out, complete, never guessed;
- lists count as multisets: the score is their F1, so extra items and missing repeats cost;
- pairs must be complete, in brackets, each once and the lower number first, and no others.

Every function is total: any input, however long or odd, gives a number in [0, 1] in linear time. Not covered: answer
extraction by a model, which the paper uses if there is no \\boxed{}.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any

from dateutil import parser as dates

MODES = ("official", "strict")
SUBSETS = ("synth", "real", "pairs")
PHRASES = ("more common", "less common", "same frequency")
DATE_LENGTH = 200
"""Longer texts are not dates; this bounds the time of the date parser."""
GOLD_LENGTH = 10_000
"""Longer golds are refused by the synth scorer; the longest published one has under 100 characters."""


def score(
    output: Any, gold: Any, subset: str = "synth", answer_type: str | None = None, mode: str = "official"
) -> float:
    """The score of `output`, in [0, 1].

    `gold` is the published column `answer`: for synth a list written in Python (`"['spam']"`, `"[12]"`,
    `"[datetime.date(2023, 1, 6)]"`), for real plain text (`"84"`, `"Fireball, Shield"`); Python lists, numbers and
    dates are accepted too. For pairs it is whatever `pairs_f1` accepts, whose F1 is their official score.
    `answer_type` (synth) is LABEL, NUMERIC, COMPARISON, USER, DATE or MONTH_YEAR, with or without the published prefix
    `ANSWER_TYPE.`. Raises ValueError for an unknown subset or mode, and nothing else.
    """
    return judge(output, gold, subset, answer_type, mode)[0]


def judge(
    output: Any, gold: Any, subset: str = "synth", answer_type: str | None = None, mode: str = "official"
) -> tuple[float, str]:
    """The score and a short explanation: the answer that was read, or why none could be."""
    if subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)}, got {subset!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if not isinstance(output, str):
        return 0.0, "the output is not text"
    if not output.strip():
        return 0.0, "the output is empty"
    if subset == "pairs":
        return official_pairs(output, gold) if mode == "official" else strict_pairs(output, gold)
    kind = str(answer_type or "").rpartition(".")[2].upper()
    if subset == "real":
        return (official_real if mode == "official" else strict_real)(output, write_real_gold(gold))
    value = read_gold(gold)
    if value is None:
        return 0.0, "the gold is not a list written in Python"
    return (official_synth if mode == "official" else strict_synth)(output, value, kind)


def official_synth(output: str, gold: Any, kind: str) -> tuple[float, str]:
    """The original's synth scorer. `gold` is the item of the gold list, a date as datetime."""
    parsed = official_candidate(output)
    if parsed is None:
        return 0.0, "no answer found; the original raises here"
    why = f"read {clip(parsed)}"
    if parsed == text_of(gold):
        return 1.0, why
    if parsed in PHRASES:
        return float(parsed in text_of(gold)), why
    if kind == "NUMERIC":
        return partial_credit(whole_number(parsed), whole_number(gold)), why
    if kind == "DATE":
        return float(isinstance(gold, datetime) and loose_date(parsed) == gold), why
    return 0.0, why


def official_candidate(output: str) -> str | None:
    """The original's answer extraction: the text after the last colon, else all of a short text, else the last word."""
    if ":" not in output:
        if len(output) < 20:
            return output
        words = output.rsplit(None, 1)
        return words[-1].strip() if words else None
    candidate = output.rpartition(":")[2].strip()
    candidate = candidate.replace("*", "").replace("[", "").replace("]", "")
    if len(candidate) >= 20:
        return next((phrase for phrase in PHRASES if phrase in candidate), candidate)
    return candidate


def official_real(output: str, gold: str) -> tuple[float, str]:
    """The original's scorer of transcript answers."""
    expected, content = read_real(gold), first_box(output)
    # Without a box the original compares the raw text, neither as a number nor as a list.
    answer = output if content is None else read_real(content)
    why = f"read {clip(answer)}" + (" (no box)" if content is None else "")
    if isinstance(expected, int) and isinstance(answer, int):
        return partial_credit(answer, expected), why
    if isinstance(expected, str) and isinstance(answer, str):
        return float(expected.strip().lower() == answer.strip().lower()), why
    if isinstance(expected, list) and isinstance(answer, list) and expected:
        return len(set(expected) & set(answer)) / len(expected), why
    return 0.0, why + ", which is of another type than the gold"


def strict_synth(output: str, gold: Any, kind: str) -> tuple[float, str]:
    keyed = None
    for match in KEYED_LINE.finditer(output):
        keyed = match[1]
    lines = output.strip().splitlines()
    if keyed is None and len(lines) > 1:
        return 0.0, "no line of the form 'Answer: value'"
    parsed = bare(lines[0] if keyed is None else keyed)
    why = f"read {clip(parsed)}"
    if isinstance(gold, datetime):
        return float(exact_date(parsed) == gold), why
    if kind in ("NUMERIC", "USER") or isinstance(gold, int):
        expected = whole_number(gold)
        return float(expected is not None and number(parsed) == expected), why
    if kind == "COMPARISON":
        said = [phrase for phrase in PHRASES if phrase in parsed.lower()]
        if len(said) != 1 or NEGATION.search(parsed):
            return 0.0, why + ", which holds none or several of the phrases, or a negation"
        return float(said[0] in text_of(gold).lower()), why
    return float(bool(parsed) and fold(parsed) == fold(text_of(gold))), why


def strict_real(output: str, gold: str) -> tuple[float, str]:
    content = last_box(output)
    answer = bare(output if content is None else content)
    why = f"read {clip(answer)}" + (" (no box)" if content is None else "")
    expected = read_real(gold)
    if isinstance(expected, int):
        return float(number(answer) == expected), why
    wanted = Counter(fold(item) for item in (expected if isinstance(expected, list) else [expected]))
    given = Counter(fold(bare(item)) for item in answer.split(",") if item.strip())
    both = (wanted & given).total()
    return (2 * both / (wanted.total() + given.total()) if both else 0.0), why


def official_pairs(output: str, gold: Any) -> tuple[float, str]:
    found = pairs_f1(output, gold)
    return found["f1"], f"precision {found['precision']:.3f}, recall {found['recall']:.3f}"


def strict_pairs(output: str, gold: Any) -> tuple[float, str]:
    given = [(numeral(a), numeral(b)) for a, b in BRACKETED_PAIR.findall(output)]
    wanted = {pair if is_lower(*pair) else pair[::-1] for pair in read_pairs(gold)}
    right = len(given) == len(wanted) and set(given) == wanted
    return float(right), f"{len(given)} pairs in brackets, of {len(wanted)}"


def pairs_f1(prediction: Any, gold: Any) -> dict[str, float]:
    """Precision, recall and F1 over unordered pairs of whole numbers (RLM paper, appendix on Oolong-Pairs).

    Pairs are every `(int, int)` in the text or, if there is none, every bare `int, int`; repeats count once.
    `gold` is a list of such texts or of pairs, or one text. Two empty sets agree: 1.0.
    """
    found, wanted = read_pairs(prediction), read_pairs(gold)
    if not found and not wanted:
        return {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    both = len(found & wanted)
    if not both:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    precision, recall = both / len(found), both / len(wanted)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / (precision + recall)}


# A run of digits is entered at its start only, so that long runs are read once. Digits are ASCII.
BRACKETED_PAIR = re.compile(r"\(\s*(-?[0-9]+)\s*,\s*(-?[0-9]+)\s*\)")
BARE_PAIR = re.compile(r"(?<![0-9-])(-?[0-9]+)\s*,\s*(-?[0-9]+)")
KEYED_LINE = re.compile(r"^[ \t*_`#>-]{0,8}(?:label|answer|user|date)[*_`]{0,4}:[ \t]*(\S[^\r\n]*)", re.I | re.M)
NEGATION = re.compile(r"\b(?:not|never|neither|nor)\b|n't\b", re.I)
WHOLE_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
MAX_DEPTH = 100
"""Braces in a box may be nested this deep; anything deeper is no answer."""
DATE_FORMATS = ("%m/%d/%Y", "%Y-%m-%d", "%B %d, %Y", "%b %d, %Y", "%d %B %Y", "%d %b %Y", "%B %d %Y", "%b %d %Y")


def read_pairs(source: Any) -> set[tuple[str, str]]:
    """Unordered pairs as sorted tuples of numerals without leading zeros."""
    if source is None:
        return set()
    if not isinstance(source, str):
        items = source if isinstance(source, Iterable) else [source]
        source = "\n".join(f"({', '.join(map(str, p))})" if isinstance(p, list | tuple) else str(p) for p in items)
    found = BRACKETED_PAIR.findall(source) or BARE_PAIR.findall(source)
    pairs = ((numeral(a), numeral(b)) for a, b in found)
    return {(a, b) if a <= b else (b, a) for a, b in pairs}


def numeral(digits: str) -> str:
    """A numeral without leading zeros, to be compared as text: `int` of a long one takes quadratic time."""
    sign, value = digits[: digits.startswith("-")], digits.lstrip("-").lstrip("0")
    return sign + value if value else "0"


def is_lower(a: str, b: str) -> bool:
    """True if numeral `a` is at most `b`; long numerals are compared as text, not converted."""
    if a.startswith("-") != b.startswith("-"):
        return a.startswith("-")
    smaller = (len(a), a) <= (len(b), b)
    return a == b or smaller != a.startswith("-")


def read_gold(gold: Any) -> Any:
    """The first item of a synth gold, a date as datetime; None if the gold cannot be read."""
    if isinstance(gold, str):
        if len(gold) > GOLD_LENGTH:
            return None
        try:
            if "datetime" in gold:
                return datetime.strptime(gold, "[datetime.date(%Y, %m, %d)]")
            gold = ast.literal_eval(gold)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(gold, list | tuple) or not gold:
        return None
    first = gold[0]
    return datetime(first.year, first.month, first.day) if isinstance(first, date) else first


def show_gold(gold: Any) -> str:
    """A synth gold in the form of an answer, dates as MM/DD/YYYY. Raises ValueError if it cannot be read."""
    value = read_gold(gold)
    if value is None:
        raise ValueError(f"gold must be a list written in Python such as \"['spam']\", got {clip(gold)}")
    return f"{value.month:02d}/{value.day:02d}/{value.year:04d}" if isinstance(value, datetime) else text_of(value)


def write_real_gold(gold: Any) -> str:
    """A gold of the real set, as text in the format of its column."""
    if isinstance(gold, list | tuple):
        return ", ".join(map(text_of, gold))
    return gold if isinstance(gold, str) else text_of(gold)


def read_real(text: str) -> int | str | list[str]:
    """The original's typing of an answer about transcripts: a whole number, a list if there is a comma, else text."""
    value = whole_number(text)
    if value is not None:
        return value
    if "," in text:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def first_box(text: str) -> str | None:
    """The capture of the original's two patterns for \\boxed{\\text{...}} and \\boxed{...}, in linear time."""
    head, at = "\\boxed{\\text{", 0
    while (start := text.find(head, at)) >= 0:
        close = text.find("}", start + len(head))
        if close < 0:
            break
        if text.startswith("}}", close):
            return text[start + len(head) : close]
        at = close  # every earlier opening ends at this same brace
    start = text.find("\\boxed{")
    close = text.find("}", start)
    if start < 0 or close < 0:
        return None
    return text[start + len("\\boxed{") : close].lstrip("{")


def last_box(text: str) -> str | None:
    """The content of the last \\boxed{...}, braces balanced, without a \\text{} around it; None if no box is closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed")
    for brace in re.finditer(r"[{}]", text[begin:]):
        depth += 1 if brace[0] == "{" else -1
        if depth > MAX_DEPTH:
            return None
        if not depth:
            inside = text[begin + 1 : begin + brace.start()].strip()
            wrapped = re.fullmatch(r"(?:\\(?:text|mathrm|textbf))?\{([^{}]*)\}", inside)
            return wrapped[1] if wrapped else inside
    return None


def loose_date(text: str) -> datetime | None:
    """The date that python-dateutil parses, as in the original; None if it parses none or only part of one: the
    original completes a partial date from today's, and no score may depend on that."""
    if len(text) > DATE_LENGTH:
        return None
    try:
        one, other = (
            dates.parse(text, default=datetime(year, month, day), tzinfos=zone)
            for year, month, day in ((2000, 1, 1), (2004, 2, 2))
        )
    except (ValueError, OverflowError, TypeError, AttributeError, IndexError, KeyError, RecursionError):
        return None
    return one if one == other else None


def zone(name: str | None, offset: int | None) -> tzinfo | None:
    """Time zones for the date parser: a known offset makes a date aware, hence unequal to every gold; an unknown name
    is dropped without a warning."""
    return None if offset is None else timezone(timedelta(seconds=offset))


def exact_date(text: str) -> datetime | None:
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def partial_credit(answer: int | None, gold: int | None) -> float:
    """0.75 ** |difference|, the original's partial credit for counts."""
    if answer is None or gold is None:
        return 0.0
    try:
        return 0.75 ** abs(gold - answer)
    except OverflowError:
        return 0.0


def whole_number(value: Any) -> int | None:
    """`int(value)` for text and whole numbers, None if that raises (`12.0`, words, over 4,300 digits)."""
    if not isinstance(value, str | int):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def number(text: str) -> int | None:
    return whole_number(text.replace(",", "")) if WHOLE_NUMBER.fullmatch(text) else None


def bare(text: str) -> str:
    """The text without the decoration that models put around an answer."""
    text = text.strip(" \t\r\n\v\f\u00a0*_`\"'[]()$")
    return text.removesuffix(".").rstrip(" *_`\"'[]()$")


def fold(text: str) -> str:
    return " ".join(text.casefold().split())


def text_of(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # an int with more digits than Python writes
        return ""


def clip(value: Any) -> str:
    shown = value if isinstance(value, str) else text_of(value)
    return repr(shown[:80]) + ("..." if len(shown) > 80 else "")
