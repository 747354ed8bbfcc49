"""`--set key=value`: how it is read, and what several of them come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.runs.config import merge_options, parse_option
from rlm_env.runs.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("max_turns=8", {"max_turns": 8}),
        ("lengths=512,4096", {"lengths": [512, 4096]}),
        ("lengths=[512]", {"lengths": [512]}),
        ("vocabulary=easy", {"vocabulary": "easy"}),
        ("families=counting,user", {"families": ["counting", "user"]}),
        ("leak=0.5", {"leak": 0.5}),
        ("with_labels=true", {"with_labels": True}),
        ("rlm.root.temperature=0", {"rlm": {"root": {"temperature": 0}}}),
        ("path=/a b/c=d", {"path": "/a b/c=d"}),
        ("empty=", {"empty": ""}),
        ('text="a,b"', {"text": "a,b"}),
    ],
)
def test_options_of_the_command_line(text, parsed):
    assert parse_option(text) == parsed


@given(st.text())
def test_any_value_is_read_or_refused_and_never_breaks_out_of_its_key(value):
    assert list(parse_option(f"key={value}")) == ["key"]


@pytest.mark.parametrize("text", ["max_turns", "=3", "a..b=3", ".=3"])
def test_an_option_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="key=value"):
        parse_option(text)


def test_later_options_win_and_neighbors_stay():
    assert merge_options(["root.top_p=0.5", "root.temperature=1", "root.temperature=0"]) == {
        "root": {"top_p": 0.5, "temperature": 0}
    }
