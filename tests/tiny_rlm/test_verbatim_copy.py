"""tiny-rlm's lessons of verbatim-copy-rlm: teachers in the real REPL, and the scripted copyist."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.task import Task
from tests.tiny_rlm.playing import check_strategies
from tiny_rlm.profile import make_environment
from tiny_rlm.verbatim_copy import COPY, STRATEGIES, VerbatimCopyLessons, asked, cut

LESSONS = VerbatimCopyLessons()


@pytest.mark.slow
async def test_every_strategy_ends_and_only_the_sound_ones_are_always_right():
    async with make_environment(LESSONS, 0) as env:
        scores = await check_strategies(env, LESSONS, 14)  # every length, words and groups of digits
    assert set(
        scores["last_word_lost"]
        + scores["first_half"]
        + scores["first_word"]
        + scores["from_context"]
        + scores["no_answer"]
    ) == {0.0}


@given(st.text("ab1 ", max_size=40))
def test_pieces_make_the_whole_text(text):
    assert "".join(cut(text)) == text


def test_readings_copy_the_text_or_a_piece_of_it():
    tasks = make_environment(LESSONS, 0).tasks("train").take(30)
    texts = [asked(task) for task in tasks]
    readings = LESSONS.readings(tasks, random.Random(0))
    assert 60 < len(readings) <= 90
    assert all(prompt["content"] == COPY + reply["content"] for prompt, reply in readings)
    copied = {reply["content"] for _, reply in readings}
    assert set(texts) <= copied
    assert all(any(reply in text for text in texts) for reply in copied)


def test_strategies_that_ask_are_named():
    task = make_environment(LESSONS, 0).tasks("train").take(1)[0]
    calling = {name for name in STRATEGIES if "llm_batch" in LESSONS.plan(task, name, random.Random(0)).replies[0]}
    assert calling == LESSONS.batching


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        LESSONS.plan(Task("Copy this.", gold="this"), "sound", random.Random(0))
