"""Stretches of a context in other texts: what is folded comes back to the character, and all of it is found."""

from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.stretches import SHORTEST, Stretches, unfold

alphabet = st.sampled_from("ab \né🙂\ud800")
sources = st.text(alphabet, max_size=600) | st.text(st.characters(), min_size=64, max_size=300).map(lambda s: s * 3)


@st.composite
def quoting(draw):
    """A source, and a text that is made of pieces of it and of other text."""
    source = draw(sources)
    text = ""
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(source)))
        text += source[start : start + draw(st.integers(0, 400))] + draw(st.text(max_size=3))
    return source, text


@settings(max_examples=300, deadline=None)
@given(quoting())
def test_a_folded_text_comes_back_to_the_character(pair):
    source, text = pair
    stretches = Stretches(source)
    parts = stretches.fold(text)
    assert unfold(parts, source) == text
    assert all(part[1] - part[0] >= SHORTEST for part in parts if isinstance(part, list))


def noise(n: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices(string.ascii_letters + " \n", k=n))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9000), st.integers(0, 63), st.integers(64, 900))
def test_every_stretch_of_64_characters_is_found(start, lead, length):
    source = noise(10_000)
    piece = source[start : start + length]
    parts = Stretches(source).fold("#" * lead + piece + "#")
    if len(piece) >= SHORTEST:
        assert [start, start + len(piece)] in parts


LOG = "".join(
    f"2024-01-01 12:00:00 INFO a line like all the others of this long log file, number {i:06d}\n" for i in range(9000)
)


@pytest.mark.parametrize(
    "source", ["word " * 40_000, LOG, "x" * 200_000, ("the same page\n" + "=" * 80 + "\n") * 3000, noise(200_000)]
)
def test_a_long_quote_is_few_references_whatever_the_context_is_like(source):
    stretches = Stretches(source)
    for start in (0, 1, 50_001, 130_003):
        parts = stretches.fold(f"Count them.\n\n{source[start : start + 20_000]}\n\nAnswer with a number.")
        assert unfold(parts, source).count(source[start : start + 20_000])
        assert sum(len(str(part)) for part in parts) < 200


def test_it_takes_linear_time():
    source, other = noise(4_000_000), noise(1_000_000, seed=1)
    stretches = Stretches(source)
    start = time.process_time()
    assert stretches.fold(source) == [[0, len(source)]]
    assert stretches.fold(other) == [other]
    assert stretches.fold("a" * 1_000_000)
    assert time.process_time() - start < 5


@pytest.mark.slow
def test_a_context_of_100_mb_is_indexed_in_seconds():
    source = noise(1_000_000) * 2 + LOG * 10
    source += noise(100_000_000 - len(source), seed=3)
    start = time.process_time()
    assert Stretches(source).fold("x" + source[-30_000:]) == ["x", [len(source) - 30_000, len(source)]]
    assert time.process_time() - start < 30
