"""docs/errors.md: every message that it explains is said by the code, in these words."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
GAP = "\0"
"""Stands for a value in a text."""


def quoted() -> list[str]:
    """The messages of the page: the first cell of each row of its tables."""
    return re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


@cache
def said() -> str:
    """Every text in the code, f-strings with a mark for each value, one a line."""
    texts: list[str] = []
    for path in sorted((ROOT / "rlm_env").rglob("*.py")):
        for node in ast.walk(ast.parse(Path(path).read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(p.value) if isinstance(p, ast.Constant) else quoted_value(p) for p in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in texts)


def quoted_value(value: ast.expr) -> str:
    """`{name!r}` stands in quotes."""
    return f"'{GAP}'" if isinstance(value, ast.FormattedValue) and value.conversion == ord("r") else GAP


def is_said(message: str) -> bool:
    pattern = "[^\n]*?".join(re.escape(part) for part in message.split("..."))
    return re.search(pattern, said()) is not None


def test_every_message_is_said():
    assert len(quoted()) >= 40
    assert [message for message in quoted() if not is_said(message)] == []


def test_a_message_that_nobody_says_is_found():
    assert is_said("unknown key '...'")
    assert not is_said("unknown kye '...'")


def test_every_row_has_a_cause_and_a_remedy():
    rows = [row for row in PAGE.splitlines() if row.startswith("| `")]
    assert len(rows) == len(quoted())
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3, row
        assert all(cells), row
