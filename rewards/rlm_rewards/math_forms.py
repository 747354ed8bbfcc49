"""Reads a boxed answer for the strict mode of `math_python`: its value in LaTeX, and its unit, base and other facts.

Covered: LaTeX, Unicode and what Python prints (`python_latex.py`); thousands, mixed and repeating decimals, scientific
numbers; scale words, units, currencies, bases; chains of equations and alternatives. Not covered: comparing values,
which math-verify does (`math_worker.py`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from rlm_rewards.python_latex import CONSTANTS, decimal_latex, python_to_latex
from rlm_rewards.quantities import HEDGES, KNOWN, SCALES, WORDS, find_quantities, plain_text

SYMBOLS = {
    "π": r"\pi ",
    "∞": r"\infty ",
    "√": r"\sqrt",
    "∛": r"\sqrt[3]",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∙": r"\cdot ",
    "∗": r"\cdot ",
    "÷": "/",
    "∕": "/",
    "±": r"\pm ",
    "∓": r"\mp ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\neq ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∅": r"\emptyset ",
    "∈": r"\in ",
    "°": r"^\circ ",
    "′": "'",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℚ": r"\mathbb{Q}",
    "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "∧": r"\land ",
    "∨": r"\lor ",
    "…": r"\ldots ",
}
GREEK = re.findall(
    "[a-z]+",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega",
)
SYMBOLS |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.replace('lambda', 'lamda').upper()}"): rf"\{name} " for name in GREEK
}
SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
SMALL_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ₀₁₂₃₄₅₆₇₈₉", "0123456789-+n0123456789")
DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"), "-")

THIN = r"(?:\\[,;:! ]|\{,\}|[,_'\u2009\u202f\u00a0 ~])"
THOUSANDS = re.compile(rf"(?<![\w.^,])\d{{1,3}}(?:({THIN})\d{{3}}(?:\1\d{{3}})*)(?!\d|{THIN}\d)")
SPACES = re.compile(r"\\[,;:! ]|\\q?quad\b|~|[\s\u2009\u202f\u00a0]+")
REPEATING = re.compile(
    r"(?<![\w.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|(?<![\w.])(\d+)\.(\d*)\((\d+)\)"
)
MIXED = re.compile(
    r"(?<![\w.}^/])(\d+)\s*"
    r"(?:\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}|\\[dtc]?frac(\d)(\d)|\s(\d+)/(\d+))(?![\d.])"
)
SCIENTIFIC = re.compile(r"(?<![\w.}])(\d+(?:\.\d+)?)\s*\\(?:times|cdot)\s*10\s*\^\s*\{?\s*([+-]?\d{1,3})(?!\d)\s*\}?")
NAMES = "|".join(["infinity", *(name for name in CONSTANTS if len(name) > 1 and name not in ("True", "False"))])
CONSTANT = re.compile(rf"(?<![\\A-Za-z])({NAMES})(?![A-Za-z])")
VARIABLES = re.compile(r"(?<=\d)(?<![\\A-Za-z_{]\d)[A-Za-z]{2,3}(?![A-Za-z(])")
MARKED = re.compile(r"\\(?:text(?:rm|bf|it|sf|tt)?|mathrm|mathsf|mbox|operatorname)\s*\{([^{}]*)\}")
FRAME = re.compile(r"\A(?:\$+(.*?)\$+|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*(.*)\*\*|`+(.*?)`+|\"(.*)\"|'(.*)')\Z", re.S)
MONEY = re.compile(r"\A\s*([-+]?)\s*(\\?\$|€|£|¥|₹|\\pounds|\\euro|\\yen|(?:USD|EUR|GBP|JPY|US\$)(?![A-Za-z]))\s*")
MONEY_NAMES = {r"\$": "usd", "$": "usd", "us$": "usd", r"\pounds": "gbp", r"\euro": "eur", r"\yen": "jpy"}
BASE_NAMES = {
    **{name: base for name, base in WORDS.items() if 2 <= base <= 16},
    "binary": 2,
    "octal": 8,
    "decimal": 10,
    "hexadecimal": 16,
    "hex": 16,
}
BASE = re.compile(
    r"\A[(⟦]?\s*([0-9][0-9A-Fa-f]*|[0-9A-F]+)\s*[)⟧]?\s*(?:_\s*\{?\s*(?:⟦)?\(?(\d{1,2}|[a-z]+)\)?(?:⟧)?\s*\}?"
    r"|[\s⟦(]+(?:in\s+)?base[\s-]+(\d{1,2}|[a-z]+)[⟧)\s]*|[\s⟦(]+(?:in\s+)?(binary|octal|hexadecimal|hex)[⟧)\s]*)\Z"
)
LITERAL = re.compile(r"\A0([box])([0-9a-f]+)\Z", re.I)
LETTERS_OF_NUMBERS = re.compile(r"\\(?:[dtc]?frac|sqrt|pi|cdot|times|left|right|infty|pm|[,;:! ])|\be\b")
CHAIN = re.compile(r"(?<![<>!=:])(?:=|\\approx(?![a-z])|\\simeq(?![a-z]))(?!=)")
INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|ne|neq|not)(?![a-z])|\\leqslant|\\geqslant")
SETS = re.compile(r"[\[\](]|\\(?:cup|cap|mathbb|infty|in|emptyset|\{)|\\begin")
PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-z])")
NAME = re.compile(r"[A-Za-z](?:_\{?\w\}?)?")
OR = re.compile(r"\s*(?:⟦\s*(?:or|and)\s*⟧|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])|\\lor(?![a-z]))\s*")
BROKEN_NUMBER = re.compile(r"\d\s+\d")


@dataclass(frozen=True)
class Form:
    """An answer, taken apart."""

    values: tuple[str, ...]
    """Its value in LaTeX, without a unit: each reading that is possible."""
    sides: tuple[tuple[str, str], ...] = ()
    """Of a chain of equations: each side, and the sign before it."""
    base: int = 10
    dimension: str = ""
    """What its unit measures, or its currency."""
    factor: Fraction = Fraction(1)
    """The unit in terms of the dimension's base unit."""
    noun: str = ""
    """A unit that is not known."""
    words: frozenset[str] = frozenset()
    """Words that change what is said: `not`, `or`, `at least`."""
    is_list: bool = False
    has_inequality: bool = False
    has_brackets: bool = False
    is_broken: bool = False
    """Digits stand apart that are no thousands."""


def read(text: str) -> Form:
    """The form of an answer. Total."""
    text = _plain(text)
    if (based := _in_base(text)) is not None:
        return based
    text = MARKED.sub(r"⟦\1⟧", text)
    words = frozenset(re.findall(r"[a-z]+", " ".join(re.findall(r"⟦([^⟧]*)⟧", text)).lower())) & HEDGES
    words |= frozenset(re.findall(r"(?<![\\A-Za-z])[a-z]{2,}", text.lower())) & HEDGES
    listed = OR.sub(", ", text)
    alternatives = listed != text
    body, scale, dimension, factor, noun = _amount(listed)
    sides = _sides(body)
    values = _values(sides, body) if len(sides) > 1 else _latex(body)
    if scale != 1:
        values = tuple(rf"({value}) \cdot {scale}" for value in values)
    return Form(
        values=values,
        sides=tuple((sign, _latex(side)[0]) for sign, side in sides) if len(sides) > 1 else (),
        dimension=dimension,
        factor=factor,
        noun=noun,
        words=words - {"or"} if alternatives else words,
        is_list=alternatives or _has_comma(body) or bool(PLUS_MINUS.search(body)),
        has_inequality=bool(INEQUALITY.search(body)) or bool(INEQUALITY.search(" ".join(values))),
        has_brackets=bool(SETS.search(body)) or bool(SETS.search(" ".join(values))),
        is_broken=bool(BROKEN_NUMBER.search(SPACES.sub(" ", body))),
    )


def may_be_equal(gold: Form, answer: Form) -> bool:
    """False if something beside the value differs: the base, the unit, alternatives, words."""
    if gold.base != answer.base or answer.words - gold.words or (answer.is_broken and not gold.is_broken):
        return False
    if gold.dimension != answer.dimension and gold.dimension and answer.dimension:
        return False
    if gold.noun and answer.noun and _singular(gold.noun) != _singular(answer.noun):
        return False
    if (gold.noun and answer.dimension) or (gold.dimension and answer.noun):
        return False
    names = [{side for _, side in form.sides if NAME.fullmatch(side)} for form in (gold, answer)]
    if all(names) and not names[0] & names[1]:
        return False
    if answer.has_inequality and not (gold.has_inequality or gold.has_brackets):
        return False
    return not answer.is_list or gold.is_list or gold.has_brackets


def pairs(gold: Form, answer: Form) -> list[tuple[str, str]]:
    """The values to be compared, as LaTeX; one equal pair is enough."""
    ratio = answer.factor / gold.factor if gold.dimension and gold.dimension == answer.dimension else Fraction(1)
    found = []
    for mine in gold.values:
        for theirs in _for_gold(mine, answer):
            scaled = theirs if ratio == 1 else rf"({theirs}) \cdot \frac{{{ratio.numerator}}}{{{ratio.denominator}}}"
            found.append((mine, scaled))
    return found


def _for_gold(gold: str, answer: Form) -> list[str]:
    """The readings of an answer that suit the kind of the gold."""
    readings = []
    for value in answer.values:
        inside = _inside(value)
        opening = gold.lstrip().removeprefix(r"\left")[:1]
        if value.startswith(r"\{") and opening in ("(", "[") and _inside(gold):
            continue  # a set is neither a pair nor an interval
        readings.append(value)
        if value.startswith(("(", "[")) and inside and value.endswith((")", "]")) and "," in inside:
            if gold.startswith((r"\{", r"\left\{")) or (not _inside(gold) and "," in gold):
                readings.append(inside)  # what Python prints of a list of solutions
            elif value.startswith("[") and opening == "(" and inside.count(",") > 1:
                readings.append(f"({inside})")
    return readings


def _inside(text: str) -> str:
    """What one pair of brackets holds that spans the whole text; empty if none does."""
    text = text.strip().replace(r"\left", "").replace(r"\right", "").replace(r"\{", "{").replace(r"\}", "}")
    if text[:1] not in ("(", "[", "{") or text[-1:] not in (")", "]", "}"):
        return ""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and i < len(text) - 1:
            return ""
    return text[1:-1]


def _singular(noun: str) -> str:
    return noun.lower().strip(" .").removesuffix("s")


def _plain(text: str) -> str:
    """Without frames and Unicode, with whole numbers."""
    text = re.sub(r"\s+", " ", text).strip().removesuffix("\\").strip()
    while framed := FRAME.match(text):
        inner = next(group for group in framed.groups() if group is not None).strip()
        if "$" in inner or "**" in inner or not inner:
            break
        text = inner
    text = re.sub(r"\\\\(?=[a-zA-Z]{2})", r"\\", text) if r"\begin" not in text else text
    text = SUPERSCRIPT.sub(lambda run: f"^{{{run[0].translate(SMALL_DIGITS)}}}", text.translate(DASHES))
    text = SUBSCRIPT.sub(lambda run: f"_{{{run[0].translate(SMALL_DIGITS)}}}", text)
    pieces: list[str] = []
    for i, char in enumerate(text):
        plain = SYMBOLS.get(char) or unicodedata.normalize("NFKC", char)
        if "\u2044" in plain and len(plain) > 1:  # ½
            above, _, below = plain.partition("\u2044")
            plain = f"{' ' if i and text[i - 1].isdigit() else ''}{above}/{below}"
        pieces.append(plain.replace("\u2044", "/"))
    text = "".join(pieces)
    text = re.sub(r"\\sqrt(\[3\])?\s*(?:\(([^()]*)\)|([0-9]+|[A-Za-z])(?![0-9]))", _root, text)
    text = re.sub(r"\\varnothing(?![a-z])", r"\\emptyset", text)
    text = re.sub(r"(?<!\\)%", r"\\%", text)
    text = re.sub(r"(?i)(?<=\d)[\s⟦]*(?:\\text\{\s*)?per\s?cent\}?", r"\\%", text)
    text = REPEATING.sub(_repeating, text)
    text = THOUSANDS.sub(lambda run: re.sub(r"\D", "", run[0]) if not _in_brackets(text, run) else run[0], text)
    text = MIXED.sub(_mixed, text)
    text = re.sub(r"(?<=\d)\.(?=\s*\Z)|(?<=[\w})\]])\s*[.,;]\s*\Z", "", text)
    text = SCIENTIFIC.sub(lambda found: decimal_latex(f"{found[1]}e{found[2]}") or found[0], text)
    text = re.sub(rf"\A(?:{SPACES.pattern})+|(?:{SPACES.pattern})+\Z", "", text)
    return re.sub(r"\A\s*=(?!=)|\A\s*\\(?:approx|sim)(?![a-z])", "", text).strip()


def _in_brackets(text: str, number: re.Match[str]) -> bool:
    """True for commas between numbers in brackets, which may separate: `(1,234)`."""
    return (number[1] == "," and any(bracket in text for bracket in "([")) or (number[1] == "," and r"\{" in text)


def _root(found: re.Match[str]) -> str:
    return rf"\sqrt{found[1] or ''}{{{found[2] or found[3]}}}"


def _repeating(found: re.Match[str]) -> str:
    """`0.1\\overline{6}` as a fraction."""
    whole, fixed = found[1] or found[5] or "0", found[2] or found[6] or ""
    period = found[3] or found[4] or found[7]
    below = (10 ** len(period) - 1) * 10 ** len(fixed)
    value = int(whole + fixed + period) - int(whole + fixed)
    return rf"\frac{{{value}}}{{{below}}}"


def _mixed(found: re.Match[str]) -> str:
    above, below = found[2] or found[4] or found[6], found[3] or found[5] or found[7]
    return rf"\frac{{{int(found[1]) * int(below) + int(above)}}}{{{below}}}"


def _in_base(text: str) -> Form | None:
    """A number that names its base."""
    text = MARKED.sub(r"⟦\1⟧", text).strip()
    if literal := LITERAL.match(text):
        return Form((literal[2].lower().lstrip("0") or "0",), base={"b": 2, "o": 8, "x": 16}[literal[1].lower()])
    found = BASE.match(text)
    if found is None:
        return None
    name = found[2] or found[3] or found[4]
    base = int(name) if name.isdigit() else BASE_NAMES.get(name, 0)
    digits = found[1].lower()
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return Form((digits.lstrip("0") or "0",), base=base)


def _amount(text: str) -> tuple[str, int, str, Fraction, str]:
    """A number's body, its scale, and its unit: dimension, factor, unknown noun. The text itself if it is none."""
    scale, words, body = 1, [], text
    money = MONEY.match(body)
    if money:
        body = money[1] + body[money.end() :]
    while True:
        if tail := re.search(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree)\s*([CF])?\s*\Z", body):
            words.insert(0, f"°{tail[1] or ''}")
        elif tail := re.search(r"⟦([^⟧]*)⟧\s*(?:\^\s*\{?(-?\d)\}?)?\s*\Z", body):
            words.insert(0, tail[1].strip() + (f"^{tail[2]}" if tail[2] else ""))
        elif tail := re.search(r"(?<=[\d})\s%])\s*([A-Za-z]+\.?(?:/[A-Za-z]+)?)(?:\^\s*\{?(-?\d)\}?)?\s*\Z", body):
            if not _is_unit(tail[1], body[: tail.start(1)]):
                break
            words.insert(0, tail[1] + (f"^{tail[2]}" if tail[2] else ""))
        else:
            break
        body = SPACES.sub(" ", body[: tail.start()]).rstrip()
    unit_words = []
    for word in " ".join(words).split():
        if word.lower().removesuffix("s") in SCALES:
            scale *= SCALES[word.lower().removesuffix("s")]
        else:
            unit_words.append(word)
    if not body or not _is_numeric(body):
        return text, 1, "", Fraction(1), ""
    named = " ".join(unit_words)
    if money:
        sign = money[2].lower()
        named = f"{MONEY_NAMES.get(sign, sign)} {named}".strip()
    quantities = find_quantities(plain_text(f"1 {named}")) if named else []
    if not quantities:
        return body, scale, "", Fraction(1), ""
    unit = quantities[0]
    return body, scale, unit.dimension, unit.value if unit.dimension else Fraction(1), "" if unit.dimension else named


def _is_unit(word: str, before: str) -> bool:
    """True if a word behind a number is a unit or a scale, not a variable."""
    low = word.lower().rstrip(".")
    known = low in KNOWN or low.removesuffix("s") in SCALES or low.split("/")[0] in KNOWN
    apart = before.endswith(" ")
    return (known and (len(low) > 1 or apart)) or (apart and len(low) > 2 and low not in HEDGES)


def _is_numeric(body: str) -> bool:
    """True for a number, also one with roots and fractions."""
    return bool(re.search(r"\d|\\pi", body)) and not re.search(r"[A-Za-z]", LETTERS_OF_NUMBERS.sub(" ", body))


def _sides(body: str) -> list[tuple[str, str]]:
    """The sides of a chain of equations, each with the sign before it."""
    if INEQUALITY.search(body) or _has_comma(body) or r"\begin" in body:
        return [("", body)]
    sides, sign, at = [], "", 0
    for found in CHAIN.finditer(body):
        sides.append((sign, body[at : found.start()].strip()))
        sign, at = ("=" if found[0] == "=" else "~"), found.end()
    sides.append((sign, body[at:].strip()))
    return sides if all(side for _, side in sides) else [("", body)]


def _has_comma(body: str) -> bool:
    depth = 0
    for char in body:
        depth += (char in "([{") - (char in ")]}")
        if char in ",;" and depth == 0:
            return True
    return False


def _values(sides: list[tuple[str, str]], body: str) -> tuple[str, ...]:
    """What a chain may mean: all of it if it is one equation, its first number, its last side."""
    readings = [body] if len(sides) == 2 and sides[1][0] == "=" else []
    numbers = [side for _, side in sides if _is_numeric(side)]
    last = sides[-1][1]
    if not _is_numeric(last) and re.fullmatch(r"[A-Za-z]", last) and numbers:
        readings.append(f"{last}={numbers[-1]}")  # 4 = x
    else:
        readings += [*numbers[:1], last]
    return tuple(dict.fromkeys(reading for text in readings for reading in _latex(text)))


def _latex(body: str) -> tuple[str, ...]:
    """LaTeX readings of a text: as it is, or as Python."""
    plain = re.sub(r"⟦([^⟧]*)⟧", r"\\text{\1}", body).strip()
    python = python_to_latex(re.sub(r"\\(pi|infty)(?![a-z])", lambda m: {"pi": "pi", "infty": "oo"}[m[1]], body))
    if python is not None:
        return (python, python.replace(r"\ln(", r"\log(")) if r"\ln(" in python else (python,)
    if found := decimal_latex(plain):
        return (found,)
    plain = CONSTANT.sub(lambda name: CONSTANTS.get(name[1], r"\infty") + " ", plain)
    # math-verify takes letters behind a number for a unit and leaves them out.
    return (VARIABLES.sub(lambda run: "".join(rf" \cdot {letter}" for letter in run[0]), plain),)
