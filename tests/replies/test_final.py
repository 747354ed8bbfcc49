"""An answer that is handed in as text, as `FINAL(...)`."""

from __future__ import annotations

import pytest

from tests.replies.test_forms import ONE, cells


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FINAL(42)", "FINAL(42)"),
        ("I know it.\nFINAL(the blue one)", "FINAL('the blue one')"),
        ('FINAL("x, y")', 'FINAL("x, y")'),
        ("FINAL(line one\nline two)", "FINAL('line one\\nline two')"),
        ("**FINAL(42)**", "FINAL(42)"),
        ("FINAL_VAR(result)", "FINAL_VAR('result')"),
        ('FINAL_VAR("result")', "FINAL_VAR('result')"),
        ("SUBMIT(42)", "SUBMIT(42)"),
    ],
)
def test_final_as_text_hands_in_the_answer(text, code):
    assert cells(text) == [code]
    assert cells(text, aliases=False) == []


@pytest.mark.parametrize(
    "text",
    [
        "I would write FINAL(42) at the end.",
        "```text\nFINAL(42)\n```",
        "<think>\nFINAL(42)\n</think>\nNot yet.",
    ],
)
def test_final_elsewhere_is_text(text):
    assert cells(text) == []


def test_final_beside_code_is_text():
    assert cells("```repl\nprint(1)\n```\nFINAL(42)") == [ONE]
