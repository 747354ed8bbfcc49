"""Prints a rollout on a terminal, or as plain text into a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from rlm_env.readable import visible
from rlm_env.readable.words import (
    batch_facts,
    batches,
    call_line,
    shortened_lines,
    spent,
    turn_facts,
    verdict,
)

CALLS = 5
"""Sub-calls of a batch that are listed."""
LABEL = 10
"""Characters of the column of labels."""


def print_rollout(rollout: Any, console: Console | None = None, lines: int = 24) -> None:
    """Prints it; `lines`: most lines of one text, 0 for all."""
    console = console or Console()
    for part in _rollout(rollout, lines, console.width):
        console.print(part)


def _rollout(rollout: Any, lines: int, width: int) -> Iterator[RenderableType]:
    where = " · ".join(visible(part) for part in (rollout.environment, rollout.scaffold) if part)
    yield Text.assemble((visible(rollout.id or rollout.task_id), "bold"), f"  {where}" if where else "")
    color = "yellow" if rollout.score is None else "green" if rollout.score.value >= 1 else "red"
    yield Text.assemble((", ".join(verdict(rollout)), color), ("".join(f", {part}" for part in spent(rollout)), "dim"))
    gold = rollout.gold if isinstance(rollout.gold, str) else json.dumps(rollout.gold, ensure_ascii=False)
    explained = rollout.score.explanation if rollout.score else None
    pairs = {"question": rollout.question, "answer": rollout.answer or "(none)", "right": gold, "why": explained}
    for label, text in {**pairs, "error": rollout.error}.items():
        if text and text != "null":
            yield _labeled(label, shortened_lines(text, lines), "red" if label == "error" else "")
    for index, turn in enumerate(rollout.turns):
        title = Text.assemble((f"turn {index + 1}", "bold"), ("  " + ", ".join(turn_facts(turn)), "dim"))
        yield Rule(title, align="left", style="dim")
        yield from _turn(rollout, turn, index, lines, width)
    yield Rule(style="dim")


def _turn(rollout: Any, turn: Any, index: int, lines: int, width: int) -> Iterator[RenderableType]:
    if turn.reasoning:
        yield _labeled("thoughts", shortened_lines(turn.reasoning, lines), "dim")
    if said := _without_code(turn.text, turn.code):
        yield _labeled("says", shortened_lines(said, lines))
    for code in turn.code:
        text = shortened_lines(code, 3 * lines)
        shown = Syntax(text, "python", theme="ansi_dark", background_color="default", word_wrap=True)
        yield Padding(shown, (0, 0, 0, LABEL + 2))
    for result in turn.tool_results:
        yield _labeled("tool", shortened_lines(f"{result.name}({result.arguments})\n{result.observation}", lines))
    for calls in batches(rollout, index):
        yield _labeled("sub-LLMs", batch_facts(calls), "cyan")
        for call in calls[:CALLS]:
            style = "red" if call.error is not None else "dim"
            yield _labeled("", call_line(call, max(20, (width - LABEL - 8) // 2)), style)
        if len(calls) > CALLS:
            yield _labeled("", f"and {len(calls) - CALLS:,} more", "dim")
    if turn.observation:
        yield _labeled("saw", shortened_lines(turn.observation, lines), "red" if turn.error else "")
    if turn.answer is not None:
        yield _labeled("answer", shortened_lines(turn.answer or "(empty)", lines), "green")


def _without_code(text: str, cells: list[str]) -> str:
    """What a reply says beside the code that ran."""
    for code in cells:
        text = text.replace(code, "")
    return _EMPTY_FENCE.sub("", text).strip()


_EMPTY_FENCE = re.compile(r"^```\w*\s*^```$", re.MULTILINE)


def _labeled(label: str, text: str, style: str = "") -> RenderableType:
    """A text behind a column with its label."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=LABEL, justify="right", style="dim")
    table.add_column(overflow="fold")
    table.add_row(label, Text(text, style))
    return table
