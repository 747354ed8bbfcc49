"""Thoughts that an engine has left in a reply are neither code nor answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.messages import Completion
from rlm_env.replies import strip_thinking, visible_text


@pytest.mark.parametrize(
    "text",
    [
        "<think>7? No.</think>\n\n8",
        "<think>\n7? No.\n</think>8",
        "7? No, 8.\n</think>\n\n8",
        "7? No, 8.</think>8",
        "7? No. </think> 8",
        "7? No\n</thinking>\n8",
        "<thinking>7?</thinking>8",
        "<Thinking>7?</Thinking>8",
        "<thought>7?</thought>8",
        "<reasoning>\n7?\n</reasoning>\n8",
        "<|begin_of_thought|>7?<|end_of_thought|><|begin_of_solution|>8<|end_of_solution|>",
        "[THINK]7?[/THINK]8",
        "7?[/THINK]8",
        "◁think▷7?◁/think▷8",
        "<seed:think>7?</seed:think>8",
        "<|START_THINKING|>7?<|END_THINKING|><|START_RESPONSE|>8<|END_RESPONSE|>",
        "<unused94>thought\n7?<unused95>8",
        "<|channel>thought\n7?<channel|>8",
        "<think>a</think>\n<think>7?</think>\n8",
        "<think>I write <think>7</think> first</think>8",
        "<|channel|>analysis<|message|>7?<|end|><|start|>assistant<|channel|>final<|message|>8<|return|>",
        "<|channel|>final<|message|>8",
        "analysisWe add: 7? No.assistantfinal8",
        "Is it `</think>`? No.</think>8",
    ],
)
def test_only_the_answer_is_left(text):
    assert strip_thinking(text).strip() == "8"


@pytest.mark.parametrize(
    "text", ["<think>7? I am not", "<thinking>7?</thinking>", "[THINK]7?", "7?</think>", " <think>"]
)
def test_thoughts_without_an_answer_are_no_answer(text):
    assert strip_thinking(text).strip() == ""


@pytest.mark.parametrize(
    "text",
    [
        "8",
        " 8 \n",
        "The tag is `</think>`.",
        "The tags <think> and </think> mark thoughts.",
        'Split at "</think>" and take the rest.',
        "analysis of the text: it is short",
        "```python\nx = r.split('</think>')[-1]\n```",
        '```python\nprompt = """\n<think>\n</think>\n"""\n```',
        '<tool_call>{"name": "python_repl", "arguments": {"code": "re.sub(r\'<think>.*</think> *\', r)"}}</tool_call>',
        "a < b and c > d",
    ],
)
def test_a_text_without_thoughts_stays_as_it_is(text):
    assert strip_thinking(text) == text


def test_where_the_engine_has_parted_the_thoughts_the_text_is_taken_as_it_is():
    assert visible_text(Completion("The end is </think>\n8", reasoning="Hm.")) == "The end is </think>\n8"
    assert visible_text(Completion("<think>Hm.</think>8", reasoning="Hm.")) == "8"


@given(st.text())
def test_text_without_tags_is_never_changed(text):
    if not any(mark in text for mark in ("think", "THINK", "thought", "channel", "analysis", "unused")):
        assert strip_thinking(text) == text
