"""Copying for its own sake: lessons of names, identifiers, numbers and texts of every length that the environments
have, and a measure of how often a model copies them exactly.

A model of a few million parameters copies badly what it has not seen. So most of what is copied here is invented:
digits, words of drawn syllables, and strings over a small drawn alphabet, in which the same few letters follow one
another in many orders. The other words are those of the tiny profiles, in any order.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from codeqa_rlm.words import TINY as CODE
from needle_rlm.prose import TINY as PROSE
from rlm_env.messages import Message
from tiny_rlm.scripted import conversation
from tiny_rlm.verbatim_copy import COPY
from verbatim_copy_rlm.texts import TINY_WORDS


class Kind(NamedTuple):
    """One kind of text: how one of a size is made, and the sizes that are measured, the largest last."""

    make: Callable[[random.Random, int], str]
    sizes: tuple[int, ...]


def number(draw: random.Random, digits: int) -> str:
    """Size: digits. One of four or more is grouped in threes half of the time, as in 517,642."""
    found = _digits(draw, digits)
    return f"{int(found):,}" if digits > 3 and found[0] != "0" and draw.random() < 0.5 else found


def word(draw: random.Random, letters: int) -> str:
    """Size: letters, of drawn syllables."""
    found = ""
    while len(found) < letters:
        found += draw.choice("bcdfghjklmnprstvwz") + draw.choice("aeiou") + draw.choice(["", "", "n", "r", "s", "ld"])
    return found[:letters]


def name(draw: random.Random, words: int) -> str:
    """Size: words, capitalized."""
    return " ".join(word(draw, draw.randint(3, 10)).capitalize() for _ in range(words))


def identifiers(draw: random.Random, n: int) -> str:
    """Size: how many, among them `race.take_cup`, `milk.BlueBall` and `red-fox`."""

    def one() -> str:
        module = draw.choice(CODE.nouns)
        form = draw.randrange(4)
        if form == 0:
            return f"{module}.{draw.choice(CODE.verbs)}_{draw.choice(CODE.nouns)}"
        if form == 1:
            return f"{module}.{draw.choice(CODE.adjectives).capitalize()}{draw.choice(CODE.nouns).capitalize()}"
        if form == 2:
            return f"{draw.choice(PROSE.colors)}-{draw.choice(PROSE.animals)}"
        return f"{word(draw, draw.randint(3, 6))}_{word(draw, draw.randint(3, 6))}"

    return ", ".join(one() for _ in range(n))


def words(draw: random.Random, n: int) -> str:
    """Size: words, of few different ones. One text in three stops in the middle of a word, or with a space."""
    pool = draw.choice([TINY_WORDS, TINY_WORDS, [*CODE.nouns, *CODE.adjectives], [*PROSE.colors, *PROSE.animals]])
    found = " ".join(draw.choice(pool) for _ in range(n))
    return draw.choice([found, found, f"{found} {draw.choice(pool)[: draw.randint(0, 2)]}"])


def groups(draw: random.Random, n: int) -> str:
    """Size: groups of three digits, a space behind each."""
    return "".join(f"{_digits(draw, 3)} " for _ in range(n))


def terms(draw: random.Random, n: int) -> str:
    """Size: numbers, with an operator between each two."""
    digits = draw.randint(1, 3)
    return draw.choice([" + ", " - ", " * "]).join(str(draw.randrange(10**digits)) for _ in range(n))


def letters(draw: random.Random, n: int) -> str:
    """Size: letters, of two to eight different ones."""
    alphabet = draw.sample(string.ascii_letters, draw.randint(2, 8))
    return "".join(draw.choices(alphabet, k=n))


KINDS: Mapping[str, Kind] = {
    "number": Kind(number, (1, 2, 3, 4, 6)),
    "word": Kind(word, (3, 6, 10)),
    "name": Kind(name, (1, 2)),
    "identifiers": Kind(identifiers, (1, 2, 4)),
    "words": Kind(words, (3, 6, 12, 24)),
    "groups": Kind(groups, (3, 6, 12, 24)),
    "terms": Kind(terms, (2, 5, 9)),
    "letters": Kind(letters, (4, 8, 16)),
}
KEYS = tuple(string.ascii_lowercase)


def copy_lessons(n: int, draw: random.Random, longest: float = 1.0) -> list[list[Message]]:
    """Conversations to learn from, of all kinds and of sizes up to that share of the largest.

    Half of them copy one text. The others copy several short ones, each between quotes as a program has them, or the
    one of several that a key selects.
    """

    def text(share: float = 1.0) -> str:
        kind = draw.choice(list(KINDS.values()))
        return kind.make(draw, draw.randint(1, max(1, round(kind.sizes[-1] * longest * share))))

    found = []
    for i in range(n):
        if i % 2 == 0:
            found.append(copying(text()))
            continue
        texts = [text(0.25) for _ in range(draw.randint(2, 5))]
        if i % 4 == 1:
            prompt, reply = "Quote:\n" + "\n".join(texts), ", ".join(f'"{each}"' for each in texts)
        else:
            keys = draw.sample(KEYS, len(texts))
            lines = [f"{key}: {each}" for key, each in zip(keys, texts, strict=True)]
            chosen = draw.randrange(len(texts))
            prompt, reply = "\n".join([*lines, f"Give {keys[chosen]}."]), texts[chosen]
        found.append(conversation(prompt, reply))
    return found


def copying(text: str) -> list[Message]:
    """A call that asks for a copy of the text."""
    return conversation(COPY + text, text)


def copy_rates(
    answer: Callable[[Sequence[list[Message]]], Sequence[str]], each: int, seed: int
) -> dict[str, dict[int, float]]:
    """The share of exact copies by kind and size, of `each` texts. `answer` gives the replies to conversations."""
    draw = random.Random(f"copy rates {seed}")
    rates: dict[str, dict[int, float]] = {}
    for kind, (make, sizes) in KINDS.items():
        texts = {size: [make(draw, size) for _ in range(each)] for size in sizes}
        asked = [copying(text)[:1] for size in sizes for text in texts[size]]
        replies = iter(answer(asked))
        rates[kind] = {size: sum(next(replies) == text for text in texts[size]) / each for size in sizes}
    return rates


def _digits(draw: random.Random, n: int) -> str:
    return "".join(draw.choices(string.digits, k=n))
