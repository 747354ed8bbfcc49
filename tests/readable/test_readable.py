"""A rollout without a browser: a short repr, a page on the terminal, a card in a notebook; nothing in it is trusted."""

import re

import pytest
from rich.console import Console

from rlm_env.messages import Usage
from rlm_env.readable import visible
from rlm_env.rollout import Rollout, Score, StopReason, SubCall, ToolResult, Turn

HOSTILE = "\x1b[31mred\x1b[0m\x1b]0;title\x07\r\b\x9b2J\u202e\ud800 <script>alert(1)</script> [bold]markup[/bold]"


def rollout(text: str = "seven") -> Rollout:
    calls = [
        SubCall(
            id=index, root_turn=0, batch=0, messages=[{"role": "user", "content": f"ask {index} {text}"}], text=text
        )
        for index in range(7)
    ]
    calls[2].error = f"refused: {text}"
    turn = Turn(
        text=f"I try.\n```repl\nprint(1) # {text}\n```",
        reasoning=f"Let me think. {text}",
        code=[f"print(1) # {text}"],
        observation=f"Output:\n{text}",
        answer=text,
        tool_results=[ToolResult("look", '{"a": 1}', text)],
        usage=Usage(1200, 30, 0, 1),
    )
    return Rollout(
        "rlm/eval-0-3/0",
        "eval-0-3",
        "oolong-rlm",
        question=f"How many? {text}",
        gold=["7"],
        answer=text,
        stop_reason=StopReason.READY,
        turns=[turn],
        sub_calls=calls,
        score=Score(0.25, explanation=f"read {text}"),
    )


def printed(one: Rollout, **options) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"), color_system="truecolor")  # noqa: SIM115
    one.show(console, **options)
    return console.export_text(styles=True)


def test_the_repr_is_one_short_line():
    assert repr(rollout()) == (
        "<Rollout 'rlm/eval-0-3/0': score 0.25, ready, 1 turn, 7 sub-calls (1 failed), answer 'seven'>"
    )
    assert len(repr(rollout("x" * 100_000))) < 200
    assert "\x1b" not in repr(rollout(HOSTILE))
    assert repr(Rollout()) == "<Rollout '': no score, ready, 0 turns, answer ''>"


def test_equality_and_the_fields_are_as_before():
    assert rollout() == rollout()
    assert rollout() != rollout("eight")
    assert not hasattr(rollout(), "__dict__")


def test_it_is_printed_turn_by_turn():
    text = re.sub(r"\x1b\[[\d;]*m", "", printed(rollout()))
    for expected in (
        "oolong-rlm · rlm",
        "How many? seven",
        '["7"]',
        "read seven",
        "turn 1  1,200 -> 30 tokens",
        "Let me think.",
        "I try.",
        "print(1) # seven",
        'look({"a": 1})',
        "7 sub-calls, 1 failed",
        "ask 0 seven -> seven",
        "(refused: seven)",
        "and 2 more",
    ):
        assert expected in text, expected
    assert text.count("print(1)") == 1


def test_long_texts_are_shortened_unless_all_is_wanted():
    long = "\n".join(f"row {index}" for index in range(500))
    assert "lines ..." in printed(rollout(long), lines=10)
    assert "row 250" not in printed(rollout(long), lines=10)
    assert "row 250" in printed(rollout(long), lines=0)


def test_long_lines_are_cut_unless_all_is_wanted():
    one = Rollout(turns=[Turn(text="x" * 50_000, observation="y" * 50_000 + "\nend")])
    assert len(printed(one)) < 20_000
    assert printed(one).count("48,000") == 2
    assert "end" in printed(one)
    assert printed(one, lines=0).count("y") >= 50_000
    assert len(one._repr_html_()) < 6_000


def test_control_characters_are_symbols():
    assert visible("a\tb\n") == "a\tb\n"
    assert visible("\x1b[31m\x07\x9b\u202e\x7f") == "\u241b[31m\u2407\ufffd\ufffd\u2421"
    text = printed(rollout(HOSTILE))
    sequences = set(re.findall(r"\x1b(.)", text))
    assert sequences <= {"["}
    assert all(re.fullmatch(r"[\d;]*m", rest) for rest in re.findall(r"\x1b\[([^A-Za-z]*[A-Za-z])", text))
    assert "title" in text
    assert "\x07" not in text
    assert "\r" not in text
    assert "[bold]markup[/bold]" in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_in_a_notebook_everything_is_escaped():
    html = rollout(HOSTILE)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert set(re.findall(r"<(\w+)", html)) == {"div", "b", "small", "pre", "details", "summary"}
    assert "\x1b" not in html


def test_what_no_encoding_has_is_replaced():
    one = rollout("half \ud83d of a pair, \u3000 wide, \u00a0 narrow, \U0001f469\u200d\U0001f52c")
    for text in (repr(one), printed(one), one._repr_html_()):
        assert "half \ufffd of a pair" in text.replace("\u3000", "")
        text.encode()
    assert visible("\u3000\u00a0\U0001f469\u200d\U0001f52c") == "\u3000\u00a0\U0001f469\u200d\U0001f52c"


@pytest.mark.parametrize("one", [Rollout(), Rollout("x", error="engine", stop_reason=StopReason.ERROR)])
def test_bare_rollouts_are_shown_too(one):
    assert printed(one)
    assert one._repr_html_()
