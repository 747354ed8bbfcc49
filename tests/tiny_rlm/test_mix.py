"""What tiny-rlm is trained on: conversations of every kind and scaffold, stored and read again."""

from __future__ import annotations

import pytest

from tiny_rlm.math_python import MathPythonLessons
from tiny_rlm.mix import SHARES, Mix, is_held_out, make_mix
from tiny_rlm.sessions import Conversation


@pytest.fixture(scope="module")
async def mix() -> Mix:
    return await make_mix(MathPythonLessons(), sessions=7, openings=20, seed=0)


def test_it_holds_sessions_openings_standard_answers_and_readings(mix):
    assert (len(mix.sessions), len(mix.openings), len(mix.standard)) == (7, 20, 1)
    assert [m["role"] for m in mix.standard[0].messages] == ["user", "assistant"]
    assert mix.readings
    assert len(mix.conversations) == 28 + len(mix.readings)


def test_scaffolds_have_their_shares(mix):
    prompts = [opening.messages[0]["content"] for opening in mix.openings]
    assert sum("<tips>" in prompt for prompt in prompts) == round(20 * SHARES["rlm-tips"])
    assert sum("llm_batch" not in prompt for prompt in prompts) == round(20 * SHARES["rlm-nosub"])


@pytest.mark.slow
async def test_the_seed_decides_it(mix):
    assert await make_mix(MathPythonLessons(), sessions=7, openings=20, seed=0) == mix


def test_it_is_read_as_it_was_saved(mix, tmp_path):
    mix.save(tmp_path / "mix.json")
    assert Mix.load(tmp_path / "mix.json") == mix


def test_a_tenth_of_the_prompts_of_sub_llms_is_held_out():
    readings = [Conversation([{"role": "user", "content": f"Label: {i}"}]) for i in range(2000)]
    assert 0.07 < sum(map(is_held_out, readings)) / 2000 < 0.13
