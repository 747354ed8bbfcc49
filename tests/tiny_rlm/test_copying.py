"""Lessons of copying, and the measure of it."""

from __future__ import annotations

import random
import re

import pytest

from tiny_rlm.copying import KINDS, copy_lessons, copy_rates
from tiny_rlm.verbatim_copy import COPY


@pytest.mark.parametrize("kind", KINDS)
def test_texts_have_the_size_that_was_asked_for(kind):
    units = {
        "number": r"\d",
        "word": r"[a-z]",
        "name": r"[A-Z][a-z]{2,9}",
        "identifiers": r"[a-z]+[.-][A-Za-z_]+|[a-z]+_[a-z]+",
        "words": r"[a-z]+",
        "groups": r"\d{3} ",
        "terms": r"\d+",
        "letters": r"[A-Za-z]",
    }
    make, sizes = KINDS[kind]
    draw = random.Random(0)
    for size in sizes:
        for _ in range(20):
            text = make(draw, size)
            assert len(re.findall(units[kind], text)) in ((size, size + 1) if kind == "words" else (size,)), text
    assert list(sizes) == sorted(sizes)


def test_lessons_ask_for_what_they_answer():
    lessons = copy_lessons(400, random.Random(1))
    for prompt, reply in (tuple(m["content"] for m in lesson) for lesson in lessons):
        if prompt.startswith(COPY):
            assert prompt == COPY + reply
        elif prompt.startswith("Quote:\n"):
            assert reply == ", ".join(f'"{text}"' for text in prompt.split("\n")[1:])
        else:
            *lines, last = prompt.split("\n")
            assert dict(line.split(": ", 1) for line in lines)[last[5:-1]] == reply
    kinds = [prompt["content"][:5] for prompt, _ in lessons]
    assert kinds.count("Copy:") == 2 * kinds.count("Quote") == 200


def test_a_curriculum_begins_with_short_ones():
    def longest(share):
        lessons = copy_lessons(200, random.Random(2), share)
        return max(len(prompt["content"]) for prompt, _ in lessons if prompt["content"].startswith(COPY))

    assert longest(0.1) < longest(0.4) < longest(1.0) < 120


def test_the_rate_is_that_of_exact_copies():
    def short_ones_only(conversations):
        return [m["content"].removeprefix(COPY) if len(m["content"]) < 40 else "?" for (m,) in conversations]

    rates = copy_rates(short_ones_only, each=4, seed=0)
    assert rates.keys() == KINDS.keys()
    assert rates["number"] == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 6: 1.0}
    assert rates["groups"] == {3: 1.0, 6: 1.0, 12: 0.0, 24: 0.0}
