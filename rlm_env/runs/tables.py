"""Tables of text, printed with rich or written as GitHub Markdown, from the very same cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TEXT_COLUMNS = ("", "context", "scaffold", "outcomes", "environment", "policy")
"""Columns with these headings hold words and are aligned left; all others hold numbers."""


@dataclass(slots=True)
class Cells:
    """A table as text."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    wrap: bool = False
    """Wrap cells: for tables with so many columns that a terminal would cut them off."""


def print_tables(console: Console, tables: Iterable[Cells], notes: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """Prints tables, then notes, then warnings with rich."""
    for cells in tables:
        table = Table(title=cells.title, title_justify="left", title_style="bold")
        for name in cells.header:
            whole = name != "outcomes" and not cells.wrap
            table.add_column(name, justify="left" if name in TEXT_COLUMNS else "right", no_wrap=whole)
        for row in cells.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, style="dim")
    for warning in warnings:
        console.print(warning, markup=False, highlight=False, style="yellow")


def markdown_tables(tables: Iterable[Cells], notes: Iterable[str]) -> str:
    """Tables and then notes as GitHub Markdown."""
    blocks = []
    for cells in tables:
        lines = [[_pad(cell) for cell in row] for row in [cells.header, *cells.rows]]
        rule = ["---" if name in TEXT_COLUMNS else "---:" for name in cells.header]
        table = "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])
        blocks.append(f"**{cells.title}**\n\n{table}")
    return "\n\n".join([*blocks, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _pad(cell: str) -> str:
    """Two leading blanks indent a row below the one it belongs to; Markdown would drop them."""
    cell = cell.replace("|", "\\|")
    return "&nbsp;&nbsp;" + cell[2:] if cell.startswith("  ") else cell
