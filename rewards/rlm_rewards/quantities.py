"""Parses amounts as people write them, with everything that changes their value: sign, scale, unit, currency, percent.

Understands digits and English number words, `5 million`, `5e6`, `$5m`, `2½ km`, `-3.5 °C`; units with exact factors are
converted (`5 km` is `5,000 m`). Not covered: ranges, arithmetic, other languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"), "-")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
MAX_EXPONENT = 400
"""Largest exponent of a power of ten that is parsed; keeps numbers small."""

FILLERS = frozenset(
    re.findall(
        "[a-z]+",
        "about approximately approx around roughly circa ca c some exactly precisely the a an it is was are "
        "were on in of at year date there that this total by mon monday tue tuesday wed wednesday thu "
        "thursday fri friday sat saturday sun sunday",
    )
)
"""Words that do not change the number or date next to them."""
HEDGES = frozenset(
    re.findall(
        "[a-z]+",
        "not no never neither nor or either maybe possibly perhaps between from to until till since before "
        "after prior less fewer more over under below above than least most minimum maximum max min up nearly "
        "almost half double twice triple times quarter third per minus plus negative except without unknown "
        "unsure other another bc bce",
    )
)
"""Words that may change the number or date next to them."""
SCALES = {
    "hundred": 100,
    "dozen": 12,
    "gross": 144,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "mio": 10**6,
    "mn": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
    "tn": 10**12,
    "quadrillion": 10**15,
}
LETTERS = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
"""Scales that follow the digits at once; with a currency also `m` and `b`."""

CURRENCIES = {
    "USD": "$ us$ usd dollar dollars buck bucks",
    "EUR": "€ eur euro euros",
    "GBP": "£ gbp sterling quid",
    "JPY": "¥ jpy yen",
    "CNY": "cny rmb yuan renminbi",
    "INR": "₹ inr rupee rupees",
    "KRW": "₩ krw won",
    "RUB": "₽ rub rouble roubles ruble rubles",
    "CHF": "chf",
    "AUD": "a$ au$ aud",
    "CAD": "c$ ca$ cad",
    "BTC": "₿ btc bitcoin bitcoins",
    "cent": "¢ cent cents",
}
MEASURES: dict[str, dict[str, str]] = {
    "length": {
        "1/1000": "mm millimetre millimeter",
        "1/100": "cm centimetre centimeter",
        "1": "m metre meter",
        "1000": "km kilometre kilometer kms",
        "0.0254": "inch inches",
        "0.3048": "ft foot feet",
        "0.9144": "yd yard",
        "1609.344": "mi mile",
        "1852": "nmi nautical-mile",
        "9460730472580800": "ly light-year lightyear",
    },
    "mass": {
        "1/1000": "mg milligram",
        "1": "g gram gramme",
        "1000": "kg kilogram kilo kilogramme",
        "1000000": "t tonne metric-ton",
        "453.59237": "lb lbs",
        "28.349523125": "oz ounce",
    },
    "time": {
        "1/1000": "ms millisecond",
        "1": "s sec second",
        "60": "min minute",
        "3600": "h hr hour",
        "86400": "day",
        "604800": "week",
    },
    "calendar": {"1": "month", "12": "yr year", "120": "decade", "1200": "century centuries"},
    "area": {
        "1/10000": "cm^2 square-centimetre square-centimeter",
        "1": "m^2 m2 sqm square-metre square-meter",
        "10000": "ha hectare",
        "1000000": "km^2 km2 sq-km square-kilometre square-kilometer",
        "4046.8564224": "acre",
        "2589988.110336": "sq-mi square-mile mi^2 mi2",
        "0.09290304": "sq-ft square-foot square-feet ft^2 ft2",
    },
    "volume": {"1/1000": "ml millilitre milliliter", "1": "l litre liter", "1000": "m^3 m3 cubic-metre cubic-meter"},
    "speed": {
        "1": "m/s",
        "1000/3600": "km/h kmh kph",
        "0.44704": "mph mi/h",
        "1852/3600": "kn kt knot",
    },
    "frequency": {"1": "hz hertz", "1000": "khz", "1000000": "mhz megahertz", "1000000000": "ghz gigahertz"},
    "power": {"1": "w watt", "1000": "kw kilowatt", "1000000": "megawatt", "1000000000": "gw gigawatt"},
    "fraction": {"1/100": "% percent pct per-cent", "1/1000": "‰ permille per-mille", "1/1000000": "ppm"},
    "percentage points": {"1": "percentage-point pp"},
    "angle": {"1": "° deg degree"},
    "radian": {"1": "rad radian"},
    "celsius": {"1": "°c celsius degree-celsius"},
    "fahrenheit": {"1": "°f fahrenheit degree-fahrenheit"},
    "kelvin": {"1": "kelvin"},
    "before Christ": {"1": "bc bce"},
    "forenoon": {"1": "am a.m a.m."},
    "afternoon": {"1": "pm p.m p.m."},
    "ordinal": {"1": "st nd rd th"},
    "ten years": {"1": "decade-span"},
}


def _known() -> dict[str, tuple[str, Fraction]]:
    known = {word: (f"currency {code}", Fraction(1)) for code, words in CURRENCIES.items() for word in words.split()}
    for dimension, units in MEASURES.items():
        for factor, words in units.items():
            for word in words.split():
                known[word] = known.setdefault(f"{word}s", (dimension, _factor(factor)))
    known["s"] = ("time", Fraction(1))
    return known


def _factor(text: str) -> Fraction:
    above, _, below = text.partition("/")
    return Fraction(above) / Fraction(below or 1)


KNOWN = _known()
"""A unit's name -> its dimension, and how much of the dimension's base unit it is."""
SMALL = re.findall(
    "[a-z]+", "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
)
TENS = re.findall("[a-z]+", "twenty thirty forty fifty sixty seventy eighty ninety")
WORDS = {word: value for value, word in enumerate(SMALL)} | {word: 10 * i for i, word in enumerate(TENS, start=2)}


def _any(names: Iterable[str]) -> str:
    """A pattern of any of the names, the longest first."""
    return "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))


SPELLED = rf"(?:{_any(WORDS)})\b(?:[\s-](?:and\s|hundred\b|(?:{_any(WORDS)})\b)*(?:hundred\b|(?:{_any(WORDS)})\b))*"
PREFIXES = [name for name, (dimension, _) in KNOWN.items() if dimension.startswith("currency ") and len(name) < 4]
AMOUNT = re.compile(
    rf"""
    (?:(?<![\w)\]}}.%])(?P<sign>[-+])\s?|\b(?P<minus>(?i:minus|negative))\s+)?
    (?:(?<![^\W\d_])(?P<money>(?i:{_any(PREFIXES)}))\s?(?P<inner>[-+])?)?
    (?:(?<![\w^])(?P<digits>[0-9]{{1,3}}(?:(?P<mark>[,\s'_])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*(?![0-9]))(?:\.[0-9]+)?
        |[0-9]{{1,3}}(?:\.[0-9]{{3}}){{2,}}(?![0-9])|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
        (?:[eE](?P<e>[-+]?[0-9]{{1,4}})\b|(?:\s?[x×*·]\s?10)?(?:\^|\*\*)[({{]?(?P<power>[-+]?[0-9]{{1,4}})[)}}]?
          |\s(?P<above>[0-9]{{1,4}})/(?P<below>[0-9]{{1,4}})|/(?P<over>[0-9]{{1,9}}))?(?![0-9])
      |\b(?P<spelled>(?i:{SPELLED}|an?(?=\s(?:{_any(SCALES)})\b))))
    (?P<letter>[kKmMbB](?!\w))?
    (?P<scales>(?:[\s-]?(?i:{_any(SCALES)})s?\b)*)
    (?:[\s-]?(?P<unit>(?i:{_any(KNOWN)}))(?![\w^/]))?
    (?P<glued>[^\W\d_]+)?
    """,
    re.X,
)
NOUNS = re.compile(r"(?:\s[^\W\d_]+){1,4}")
LONG_UNITS = [
    (re.compile(pattern, re.I), short)
    for pattern, short in (
        (r"\bper[\s-]cent\b", "%"),
        (r"\bpercentage[\s-]points?\b", "pp"),
        (r"\bper[\s-]mille?\b", "‰"),
        (r"(?:°|\bdegrees?)\s?(celsius|c\b)", "°c"),
        (r"(?:°|\bdegrees?)\s?(fahrenheit|f\b)", "°f"),
        (r"\b(?:square|sq\.?)[\s-](km|m|cm|mi|ft)\b", r"\1^2"),
        (r"\b(?:square|sq\.?)[\s-](?=kilomet|met|centimet|mile|foot|feet)", "square-"),
        (r"\bcubic[\s-](?=met)", "cubic-"),
        (r"\b(?:km|kilomet(?:er|re)s?)(?:/|\sper\s|\san\s)(?:hour|hr)\b", "km/h"),
        (r"\bmiles?(?:/|\sper\s|\san\s)(?:hour|hr)\b", "mph"),
        (r"\b(?:m|met(?:er|re)s?)(?:/|\sper\s|\sa\s)(?:sec|second)\b", "m/s"),
        (r"(?<=[0-9]{3}0)'?s\b", " decade-span"),
        (r"\bnautical[\s-]miles?\b", "nmi"),
        (r"\blight[\s-]years?\b", "ly"),
        (r"\bmetric[\s-]tons?\b", "tonnes"),
        (r"\b(?:us|u\.s\.|american)\s(?=\$|dollars?\b)", ""),
        (r"\b(?:canadian dollars?|cad\s?\$)", "cad"),
        (r"\b(?:australian dollars?|aud\s?\$)", "aud"),
        (r"\b(?:pounds? sterling|british pounds?)\b", "gbp"),
        (r"\bb\.?\s?c\.?(?:\s?e\b\.?)?(?!\w)", "bc"),
        (r"\ba\.?\s?d\.?(?!\w)|(?<=[0-9]\s)c\.?e\b\.?", ""),
        (r"(?<=[0-9])\s?([ap])\.?m\b\.?", r" \1m"),
    )
]


class Quantity(NamedTuple):
    value: Fraction
    """In the base unit of `dimension`, scales applied."""
    dimension: str
    """The measured quantity or the currency; empty if no known unit is named."""
    noun: str
    """Words behind the number that are no known unit (`inhabitants`), at most four."""
    start: int
    end: int


def plain_text(text: str) -> str:
    """One sort of dash, powers as `^2`, vulgar fractions as `1/2`, digits and letters of full width as usual ones,
    units of two words as one: what `find_quantities` reads."""
    text = SUPERSCRIPT.sub(lambda run: "^" + run[0].translate(SUPERSCRIPTS), text.translate(DASHES))
    pieces: list[str] = []
    for i, char in enumerate(text):
        plain = char if char in "°™®" else unicodedata.normalize("NFKC", char)
        if "\u2044" in plain:  # one character that is a fraction: 2½ is 2 1/2
            plain = plain.replace("\u2044", "/")
            plain = f" {plain}" if len(plain) > 1 and i and text[i - 1].isdigit() else plain
        pieces.append(plain)
    text = "".join(pieces)
    for pattern, short in LONG_UNITS:
        text = pattern.sub(short, text)
    return text


def find_quantities(text: str) -> list[Quantity]:
    """The amounts in a text that `plain_text` made plain, in order. Case matters: `5M` is not `5 m`."""
    return [_quantity(text, match) for match in AMOUNT.finditer(text)]


def _quantity(text: str, match: re.Match[str]) -> Quantity:
    value, dimension, end = _value(match), "", match.end()
    if match["money"]:
        dimension = KNOWN[match["money"].lower()][0]
    for scale in re.findall(r"[a-z]+", match["scales"].lower()):
        value *= SCALES.get(scale) or SCALES[scale.removesuffix("s")]
    if letter := match["letter"]:
        if scale := LETTERS.get(letter) or (LETTERS[letter.upper()] if dimension else None):
            value *= scale
        elif not match["unit"]:  # the unit m or b
            dimension, factor = KNOWN.get(letter, (letter, Fraction(1)))
            value *= factor
    if unit := match["unit"]:
        named, factor = (unit, Fraction(1)) if unit in ("M", "G", "S", "H", "T") else KNOWN[unit.lower()]
        value *= factor
        dimension = named if dimension in ("", named) else f"{dimension} {named}"
    if (match["digits"] or "")[:1] == "0" and (match["digits"] or "")[1:2].isdigit():
        dimension = f"{dimension} numbered {match['digits']}"  # 007 is a name, not 7
    if match["glued"]:
        dimension = f"{dimension} marked {match['glued']}"  # 5C is not 5
    noun = NOUNS.match(text, end) if not dimension else None
    return Quantity(value, dimension, noun[0].strip() if noun else "", match.start(), noun.end() if noun else end)


def _value(match: re.Match[str]) -> Fraction:
    """The bare number with its sign."""
    negative = ((match["sign"] == "-") + bool(match["minus"]) + (match["inner"] == "-")) % 2
    if match["spelled"]:
        value = Fraction(_spelled(match["spelled"].lower()))
    else:
        digits = match["digits"]
        marks = "." if digits.count(".") > 1 else ""
        value = Fraction(re.sub(rf"[,\s'_{marks}]", "", digits))
        power = match["e"] or match["power"]
        if power is not None and abs(int(power)) <= MAX_EXPONENT:
            bare = match["power"] is not None and not re.search(r"[x×*·]\s?10", match[0])
            value = value ** int(power) if bare and value else value * Fraction(10) ** int(power)
        if match["above"] and int(match["below"]):
            value += Fraction(int(match["above"]), int(match["below"]))
        if match["over"] and int(match["over"]):
            value /= int(match["over"])
    return -value if negative else value


def _spelled(words: str) -> int:
    total = 0
    for word in re.findall(r"[a-z]+", words):
        total = total * 100 if word == "hundred" else total + WORDS.get(word, word in ("a", "an"))
    return total
