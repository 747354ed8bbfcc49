"""Texts to copy: five everyday kinds, and three with what models and pipelines change silently.

Every kind is an endless stream of pieces; a text is its first `length` characters, so it may stop in the middle of a
record. No text contains the tags around a copy. Nothing here is normalized: composed and decomposed accents, CRLF and
LF occur side by side on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import resources

from rlm_env.authoring.draw import Draw

PIECES: dict[str, list[str]] = json.loads((resources.files("verbatim_copy_rlm") / "pieces.json").read_text("ascii"))
WORDS, TINY_WORDS = PIECES["words"], PIECES["tiny_words"]
FIRST_NAMES, CITIES = PIECES["first_names"], PIECES["cities"]
ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
CONFUSABLE = "0OoQ1lI|5S8B2Z6G"
HEX = "0123456789abcdef"


def words(draw: Draw) -> Iterator[str]:
    """Sentences that mean nothing, some paragraphs."""
    while True:
        line = [draw.choice(WORDS) for _ in range(draw.between(4, 12))]
        if draw.random() < 0.4:
            line[draw.below(len(line) - 1)] += draw.choice([",", ";", ":"])
        yield " ".join(line).capitalize() + draw.choice([". ", ". ", "? ", "! ", ".\n\n"])


def json_records(draw: Draw) -> Iterator[str]:
    """One indented JSON list."""
    opening = "[\n"
    while True:
        record = {
            "id": draw.between(10_000, 99_999),
            "name": f"{draw.choice(FIRST_NAMES)} {draw.choice(WORDS).capitalize()}",
            "active": draw.random() < 0.5,
            "score": draw.below(10_000) / 100,
            "tags": [draw.choice(WORDS) for _ in range(draw.below(4))],
            "address": {"city": draw.choice(CITIES), "zip": code(draw, "0123456789", 5), "note": None},
        }
        lines = json.dumps(record, indent=2, ensure_ascii=False).split("\n")
        yield opening + "\n".join("  " + line for line in lines)
        opening = ",\n"


def csv_rows(draw: Draw) -> Iterator[str]:
    """A header and rows; some fields quoted, some empty."""
    yield "id,date,customer,city,product,quantity,price,comment\n"
    while True:
        comment = " ".join([draw.choice(WORDS) for _ in range(draw.below(5))])
        if draw.random() < 0.4:
            comment = f'"{comment}, ""{draw.choice(WORDS)}"""'
        day = f"{draw.between(2019, 2026)}-{draw.between(1, 12):02d}-{draw.between(1, 28):02d}"
        yield (
            f"{draw.between(1000, 9999)},{day},"
            f"{draw.choice(FIRST_NAMES)},{draw.choice(CITIES)},{draw.choice(WORDS)},{draw.between(1, 500)},"
            f"{draw.below(100_000) / 100:.2f},{comment}\n"
        )


def codes(draw: Draw) -> Iterator[str]:
    """Identifiers in which every character is a surprise, some of look-alikes only."""
    forms: list[Callable[[], str]] = [
        lambda: "-".join(code(draw, ALPHANUMERIC, 4) for _ in range(draw.between(2, 5))),
        lambda: "-".join(code(draw, HEX, n) for n in (8, 4, 4, 4, 12)),
        lambda: code(draw, HEX, 40),
        lambda: code(draw, CONFUSABLE, draw.between(8, 20)),
        lambda: code(draw, "0123456789", draw.between(10, 30)),
        lambda: f"v{draw.below(30)}.{draw.below(40)}.{draw.below(90)}+{code(draw, HEX, 7)}",
    ]
    while True:
        yield draw.choice(forms)() + draw.choice(["\n", "\n", " ", "; "])


def mixed(draw: Draw) -> Iterator[str]:
    """Sections of the other everyday kinds."""
    while True:
        kind = draw.choice(["words", "json", "csv", "codes"])
        yield f"## {draw.choice(WORDS)} {draw.between(1, 99)}\n"
        pieces = KINDS[kind](draw)
        for _ in range(draw.between(2, 5)):
            yield next(pieces)
        yield "\n\n"


def unicode_text(draw: Draw) -> Iterator[str]:
    """Scripts, composed beside decomposed accents, joiners, look-alike blanks and dashes."""
    while True:
        yield draw.choice(PIECES["foreign"]) if draw.random() < 0.6 else draw.choice(WORDS)
        if draw.random() < 0.25:
            yield draw.choice(PIECES["marks"])
        yield "\n" if draw.random() < 0.08 else draw.choice(PIECES["blanks"])


def whitespace(draw: Draw) -> Iterator[str]:
    """Tabs, runs of blanks, trailing blanks, lines of blanks, CRLF beside LF."""
    while True:
        yield draw.choice(["", "", "\t", "\t\t", "  ", "    ", " \t "])
        for _ in range(draw.between(0, 6)):
            yield draw.choice(WORDS) + draw.choice([" ", " ", "  ", "\t", "   ", " \t"])
        yield draw.choice(["", "", " ", "  ", "\t"]) + draw.choice(["\n", "\n", "\r\n", "\r\n", "\n\n", "\r\n \r\n"])


def quotes(draw: Draw) -> Iterator[str]:
    """Quotes, backslashes, escapes and markup, nested wrongly."""
    while True:
        for _ in range(draw.between(1, 4)):
            yield draw.choice(PIECES["quotes"])
        yield draw.choice(["", " ", " ", "\n"]) if draw.random() < 0.6 else f" {draw.choice(WORDS)} "


def tiny_words(draw: Draw) -> Iterator[str]:
    while True:
        yield draw.choice(TINY_WORDS) + " "


def tiny_codes(draw: Draw) -> Iterator[str]:
    while True:
        yield code(draw, "0123456789", 3) + " "


KINDS: dict[str, Callable[[Draw], Iterator[str]]] = {
    "words": words,
    "json": json_records,
    "csv": csv_rows,
    "codes": codes,
    "mixed": mixed,
    "unicode": unicode_text,
    "whitespace": whitespace,
    "quotes": quotes,
}
TINY_KINDS = {"words": tiny_words, "codes": tiny_codes}


def code(draw: Draw, alphabet: str, length: int) -> str:
    random, size = draw.random, len(alphabet)
    return "".join([alphabet[int(random() * size)] for _ in range(length)])  # `draw.choice`, inlined: half the time


def make_text(pieces: Iterator[str], length: int) -> str:
    """The first `length` characters of a stream."""
    found: list[str] = []
    missing = length
    while missing > 0:
        piece = next(pieces)
        found.append(piece)
        missing -= len(piece)
    return "".join(found)[:length]


def fragmented(text: str, mean: int, draw: Draw) -> str:
    """The text cut into fragments of `mean` characters on average (half to one and a half of it), in random order:
    no grammar helps to guess what comes next."""
    fragments, at = [], 0
    while at < len(text):
        size = max(1, draw.between((mean + 1) // 2, mean + mean // 2))
        fragments.append(text[at : at + size])
        at += size
    return "".join(draw.shuffled(fragments))
