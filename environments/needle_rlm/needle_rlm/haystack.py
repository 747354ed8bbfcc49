"""A context: prose with the needle at its depth and the distractors anywhere.

The needle says `The special magic number for amber-falcon is 4401937.` Every distractor is a sentence of nearly the
same words that does not answer the question: another name, another kind of number, a denial, the past, hearsay.
All numbers of a context differ from the needle's, so exactly one answer is right, and wrong ones show.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from needle_rlm.prose import Vocabulary
from rlm_env.authoring.draw import Draw
from rlm_env.authoring.text import join_once

NEEDLE = "The special magic number for {name} is {n}."
CHUNK = 5000
"""Sentences that are joined at once: over 128 KB, so that the C library gives a chunk's memory back when it is freed.
With smaller ones the process holds a long context twice although Python does not."""
PARAGRAPH = 6

NEAR_WORDS = [
    "The special magic number for {name} is not {n}.",
    "The special magic number for {name} was {n} until last year.",
    "The ordinary magic number for {name} is {n}.",
    "The special unlucky number for {name} is {n}.",
    "The special magic number for the twin of {name} is {n}.",
    "The special magic word for {name} is shorter than {n} letters.",
    "It is a lie that the special magic number for {name} is {n}.",
    "Some wrongly say that the special magic number for {name} is {n}.",
]


@dataclass(frozen=True)
class Haystack:
    text: str
    name: str
    number: str
    depth: float
    """Start of the needle, as a share of the text."""
    distractors: int


def make_haystack(vocabulary: Vocabulary, length: int, distractors: int, depth: float, draw: Draw) -> Haystack:
    """A context of at most `length` characters, filled up to less than a sentence.

    Raises ValueError where the planted sentences alone are longer.
    """
    color, animal = draw.choice(vocabulary.colors), draw.choice(vocabulary.animals)
    name, gold = f"{color}-{animal}", fresh_number(vocabulary.digits, draw, "")

    def number() -> str:
        return fresh_number(vocabulary.digits, draw, gold)

    needle = NEEDLE.format(name=name, n=gold)
    planted = []
    for i in range(distractors):
        if i % 2 == 0 or vocabulary.name == "tiny":
            planted.append(NEEDLE.format(name=near_name(vocabulary, color, animal, draw), n=number()))
        else:
            planted.append(draw.choice(NEAR_WORDS).format(name=name, n=number()))
    room = length - len(needle) - sum(map(len, planted)) - len(planted) - 1
    if room < 0:
        raise ValueError(
            f"lengths: {length} characters are too few for the needle and {distractors} distractors; use "
            f"{length - room} or more, or fewer distractors"
        )
    # Planted sentences go in by the share of the prose written so far, the latest first in the list.
    places = sorted([(draw.random(), sentence) for sentence in planted] + [(depth, needle)], reverse=True)
    write = vocabulary.writer(draw, number)
    chunks: deque[str] = deque()
    sentences: list[str] = []
    written = count = 0
    while True:
        while places and written >= places[-1][0] * room:
            sentences += [places.pop()[1], " "]
        sentence = write()
        written += len(sentence) + 1
        if written > room:
            break
        count += 1
        sentences.append(sentence)
        sentences.append("\n" if count % PARAGRAPH == 0 else " ")
        if len(sentences) > 2 * CHUNK:
            chunks.append("".join(sentences))
            sentences.clear()
    for _, sentence in reversed(places):
        sentences += [sentence, " "]
    chunks.append("".join(sentences).rstrip())
    text = join_once(chunks)
    return Haystack(text, name, gold, text.index(needle) / len(text), distractors)


def fresh_number(digits: int, draw: Draw, taken: str) -> str:
    """A number of so many digits, another one than `taken`."""
    while True:
        number = str(draw.between(10 ** (digits - 1), 10**digits - 1))
        if number != taken:
            return number


def near_name(vocabulary: Vocabulary, color: str, animal: str, draw: Draw) -> str:
    """Another name that shares a word: `amber-falcon` becomes `amber-heron`, `azure-falcon`, `falcon-amber` or
    `amber-falcons`."""
    other_color = draw.choice([c for c in vocabulary.colors if c != color])
    other_animal = draw.choice([a for a in vocabulary.animals if a != animal])
    near = [f"{color}-{other_animal}", f"{other_color}-{animal}", f"{animal}-{color}", f"{color}-{animal}s"]
    return near[draw.below(2 if vocabulary.name == "tiny" else 4)]
