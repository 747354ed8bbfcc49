"""Tables of text, printed with rich or written as GitHub Markdown, from the very same cells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlm_env.readable import visible

TEXT_COLUMNS = ("", "context", "scaffold", "outcomes", "environment", "policy", "program")
"""Columns with these headings hold words and are aligned left; all others hold numbers."""
NONE = "-"
"""A cell without a value."""
WRAPPED = ("outcomes",)
"""Columns with these headings may be broken into lines in every table."""
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
BORDER, PADDING = 1, 3
"""Characters at the end of a printed line, and beside each cell."""


@dataclass(slots=True)
class Cells:
    """A table as text."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    wrap: bool = False
    """Cells may be broken at blanks: for tables with many columns."""
    keys: int = 1
    """The first columns, which say what a row is about; they are repeated where a table is split."""

    def column(self, index: int) -> list[str]:
        """Heading and cells of a column."""
        return [row[index] for row in (self.header, *self.rows)]


def print_tables(console: Console, tables: Iterable[Cells], notes: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """Prints tables, then notes, then warnings with rich. No number is cut: a table that is too wide is split by its
    columns, and written as lines where even that is too wide."""
    for cells in tables:
        for part in _split(_visible(cells), console.width):
            if _least_width(part) <= console.width:
                console.print(_rich(part))
            else:
                _print_lines(console, part)
    for note in notes:
        console.print(visible(note), markup=False, highlight=False, style="dim")
    for warning in warnings:
        console.print(visible(warning), markup=False, highlight=False, style="yellow")


def _visible(cells: Cells) -> Cells:
    """The table with control characters made visible: names and errors in it may be a model's or an endpoint's."""
    rows = [list(map(visible, row)) for row in cells.rows]
    return replace(cells, title=visible(cells.title), header=list(map(visible, cells.header)), rows=rows)


TITLE = 32
"""Characters of a title for which a narrow table is made wider, so that they stand in one line."""


def _rich(cells: Cells) -> Table:
    """The table for a terminal."""
    least = min(len(cells.title), TITLE)
    table = Table(title=escape(cells.title), title_justify="left", title_style="bold", min_width=least)
    for index, name in enumerate(cells.header):
        justify = "left" if name in TEXT_COLUMNS else "right"
        table.add_column(
            escape(name), justify=justify, min_width=_least(cells, index), no_wrap=not _wraps(cells, index)
        )
    for row in cells.rows:
        table.add_row(*map(escape, row))
    return table


def _print_lines(console: Console, cells: Cells) -> None:
    """One line per cell, below the cells that say what the row is about."""
    console.print(cells.title, markup=False, highlight=False, style="bold")
    for row in cells.rows:
        console.print(" ".join(row[: cells.keys]).strip(), markup=False, highlight=False, soft_wrap=True)
        for name, cell in zip(cells.header[cells.keys :], row[cells.keys :], strict=True):
            console.print(f"  {name}: {cell}", markup=False, highlight=False, soft_wrap=True)


def _split(cells: Cells, width: int) -> list[Cells]:
    """The table in parts of whole columns, each as wide as fits; itself where it fits."""
    if _least_width(cells) <= width:
        return [cells]
    keys = list(range(cells.keys))
    groups: list[list[int]] = [[]]
    for index in range(cells.keys, len(cells.header)):
        if groups[-1] and _least_width(_part(cells, [*keys, *groups[-1], index])) > width:
            groups.append([])
        groups[-1].append(index)
    parts = [_part(cells, [*keys, *group]) for group in groups]
    for number, part in enumerate(parts, 1):
        part.title = f"{cells.title} ({number} of {len(parts)})" if len(parts) > 1 else cells.title
    return parts


def _part(cells: Cells, columns: list[int]) -> Cells:
    header = [cells.header[index] for index in columns]
    rows = [[row[index] for index in columns] for row in cells.rows]
    return Cells(cells.title, header, rows, cells.wrap, cells.keys)


def _least_width(cells: Cells) -> int:
    return BORDER + sum(_least(cells, index) + PADDING for index in range(len(cells.header)))


def _least(cells: Cells, index: int) -> int:
    """Characters of a column below which a number would be cut."""
    column = cells.column(index)
    if _wraps(cells, index):
        return max((len(word) for cell in column for word in cell.split()), default=1)
    return max(map(len, column))


def _wraps(cells: Cells, index: int) -> bool:
    return cells.wrap or cells.header[index] in WRAPPED


def markdown_tables(tables: Iterable[Cells], notes: Iterable[str]) -> str:
    """Tables and then notes as GitHub Markdown."""
    blocks = []
    for cells in map(_visible, tables):
        lines = [[_pad(cell) for cell in row] for row in [cells.header, *cells.rows]]
        rule = ["---" if name in TEXT_COLUMNS else "---:" for name in cells.header]
        table = "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])
        blocks.append(f"**{markdown_text(cells.title)}**\n\n{table}")
    return "\n\n".join([*blocks, "\n".join(f"- {markdown_text(visible(note))}" for note in notes)]) + "\n"


def markdown_text(text: str) -> str:
    """The text in one line, without what would be HTML, a link or a picture: names and errors may be a model's."""
    return _TAG.sub("&lt;", " ".join(text.split("\n"))).replace("](", "]\\(")


def _pad(cell: str) -> str:
    """Two leading blanks indent a row below the one it belongs to; Markdown would drop them."""
    cell = markdown_text(cell).replace("|", "\\|")
    return "&nbsp;&nbsp;" + cell[2:] if cell.startswith("  ") else cell
