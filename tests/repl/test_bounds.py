"""How text over a limit is shortened."""

import pytest

from rlm_env.repl.bounds import first_line, omitted, shorten


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (" \n\n", ""),
        ("KeyError: 'x'\n  File ...", "KeyError: 'x'"),
        ("\n  late  \nmore", "late"),
        ("TypeError: ", "TypeError"),
        ("a" * 500, "a" * 200),
    ],
)
def test_the_first_line_of_an_error(text, line):
    assert first_line(text) == line
    assert first_line("abcdef", 3) == "abc"


def test_shortened_text_says_how_much_is_left_out():
    text = "".join(map(str, range(1000)))
    short = shorten(text, 200)
    assert len(short) <= 200
    assert short.startswith(text[:60])
    assert short.endswith(text[-60:])
    assert f"[{omitted(len(text), 200):,} of {len(text):,} characters omitted]" in short
    assert shorten(text, len(text)) == text
