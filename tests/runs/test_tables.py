"""Tables on narrow terminals: no number is cut, whatever the width."""

import io

import pytest
from rich.console import Console

from rlm_env.runs.tables import Cells, markdown_tables, print_tables


def printed(cells: Cells, width: int) -> str:
    out = io.StringIO()
    print_tables(Console(file=out, width=width), [cells], ["a note"], ["a warning"])
    return out.getvalue()


NUMBERS = [f"0.{n}19 [0.{n}45, 0.{n}03]" for n in range(1, 6)]
TABLE = Cells("Title", ["", "standard", "rlm", "rlm-tips", "rlm-nosub", "summary"], [["score", *NUMBERS]])
WRAPPED = Cells("Title", TABLE.header, TABLE.rows, wrap=True)


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 30, 20])
def test_every_number_is_whole(width):
    for table in (TABLE, WRAPPED):
        text = printed(table, width)
        assert "…" not in text
        for cell in NUMBERS:
            for number in cell.replace("[", "").replace("]", "").replace(",", "").split():
                assert number in text
        for name in TABLE.header:
            assert name in text
        assert "a note" in text
        assert "a warning" in text


def test_a_wide_table_is_split_by_columns():
    text = printed(TABLE, 80)
    assert "Title (1 of 2)" in text
    assert text.count("score") == 2
    assert "(1 of" not in printed(TABLE, 200)


def test_a_very_narrow_one_is_lines():
    assert "  rlm: 0.219 [0.245, 0.203]" in printed(TABLE, 20)


def test_columns_that_tell_rows_apart_are_repeated():
    table = Cells("T", ["context", "scaffold", "a", "b"], [["512", "rlm", "1" * 30, "2" * 30]], keys=2)
    assert printed(table, 60).count("rlm") == 2


def test_words_of_others_do_not_steer_the_terminal_nor_end_a_report():
    cells = Cells("scores\x1b[2J", ["", "rlm"], [["metric \ud800", "\x07"]])
    out = io.StringIO()
    print_tables(Console(file=out, width=80), [cells], ["a note \x1b"], ["a warning \ud800"])
    for text in (out.getvalue(), markdown_tables([cells], ["a note \x1b"])):
        text.encode()
        assert not set(text) & {"\x1b", "\x07"}
        assert "metric \ufffd" in text


def test_words_of_others_are_neither_html_nor_links_in_markdown():
    hostile = "a\nb|c <script>x</script> ![x](//x) 1 < 2"
    text = markdown_tables([Cells(hostile, ["", hostile], [[hostile, "1"]])], [hostile])
    assert "<script" not in text
    assert "](" not in text
    assert text.count("a b") == 4
    assert "1 < 2" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count(" | ") for line in rows] == [1, 1, 1]


@pytest.mark.parametrize(("width", "lines"), [(80, 6), (30, 6)])
def test_the_title_of_a_narrow_table_stands_in_one_line(width, lines):
    text = printed(Cells("Sub-calls of a rollout", ["", "rlm"], [["0", "8"]]), width)
    assert text.splitlines()[0].strip() == "Sub-calls of a rollout"
    assert max(map(len, text.splitlines())) <= width
    assert len(text.split("a note")[0].splitlines()) == lines
