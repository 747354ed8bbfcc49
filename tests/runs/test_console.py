"""What a command says while something takes its time."""

import io

import pytest
from rich.console import Console

from rlm_env.runs import console as module
from rlm_env.runs.console import say_note, stage


def told(*, terminal: bool, **stages: str) -> str:
    out = io.StringIO()
    with stage(Console(file=out, force_terminal=terminal, width=80), "starting it") as tell:
        for more in stages.values():
            tell(more)
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_at_both_ends():
    assert told(terminal=False, one="loading") == "starting it ...\nstarting it: done after 0 s\n"


def test_without_a_terminal_there_is_a_line_a_minute(monkeypatch):
    monkeypatch.setattr(module, "PLAIN_SECONDS", -1.0)
    lines = told(terminal=False, one="loading", two="compiling").splitlines()
    assert lines[1:3] == ["starting it: loading", "starting it: compiling"]


def test_on_a_terminal_there_is_a_spinner_and_the_time_it_took():
    assert "starting it: done after 0 s" in told(terminal=True, one="loading")


def test_words_of_others_do_not_steer_the_terminal():
    out = io.StringIO()
    say_note(Console(file=out, width=20), "the endpoint says: \x1b[2J\ud800 and more than fits a line")
    assert out.getvalue() == "note: the endpoint says: \u241b[2J\ufffd and more than fits a line\n"


def test_what_fails_is_not_done():
    out = io.StringIO()
    with pytest.raises(KeyError), stage(Console(file=out), "starting it"):
        raise KeyError
    assert "done" not in out.getvalue()
