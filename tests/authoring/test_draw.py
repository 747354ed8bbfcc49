"""What generators share: pinned draws, texts held once, checks of options."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque

from rlm_env.authoring.draw import Draw, wheel
from rlm_env.authoring.text import join_once


def test_draws_are_pinned():
    draw = Draw("name", 1)
    assert [draw.below(100) for _ in range(5)] == [54, 34, 35, 35, 47]
    assert draw.shuffled("abcdef") == ["e", "f", "d", "c", "b", "a"]
    assert wheel([2, 0, 1]) == [0, 0, 2]


def test_draws_are_even_and_stay_within_their_bounds():
    draw = Draw("even")
    seen = Counter(draw.between(3, 7) for _ in range(5000))
    assert set(seen) == {3, 4, 5, 6, 7}
    assert max(seen.values()) < 1.3 * min(seen.values())
    assert sorted(draw.sample(range(9), 9)) == list(range(9))
    assert Draw("a", 1).random() != Draw("a1").random()


def test_a_joined_text_is_never_held_twice():
    chunks = deque(f"{i:099d}" * 100 for i in range(500))
    size = sum(map(len, chunks))
    tracemalloc.start()
    try:
        text = join_once(chunks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not chunks
    assert len(text) == size
    assert peak < 1.1 * size
