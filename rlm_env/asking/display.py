"""What somebody who waits for an answer sees: turns, code, sub-calls, tokens and money as they come.

On a terminal the last line is live; elsewhere there are lines only. Everything goes to standard error, so that the
answer alone is on standard output.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rlm_env.evals.setup import RolePrices
from rlm_env.events import (
    AnswerChanged,
    BudgetSpent,
    CodeEnded,
    CodeStarted,
    Event,
    RolloutEnded,
    SubCallEnded,
    SubCallStarted,
    TurnReplied,
)
from rlm_env.messages import Usage
from rlm_env.readable import visible
from rlm_env.readable.words import counted, money, start_of
from rlm_env.replies import visible_text
from rlm_env.rollout import Rollout, Turn
from rlm_env.runs.prices import total_cost

LINES_SHOWN = 6
"""Lines of code and of output that are shown of a cell."""
LINE_CHARS = 1000
"""Characters of a text that is shown in one line; the console cuts it at its width."""
INDENT = "  "


@dataclass(slots=True)
class Display:
    """Shows the events of one rollout; a context manager, and the listener to hand over as `on_event`."""

    console: Console
    prices: RolePrices | None = None
    verbose: bool = True
    """False: nothing is printed, but what is known is kept."""
    rollout: Rollout | None = None
    """The record, when the rollout has ended."""
    answer: str = ""
    """The answer so far."""
    turns: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    root: Usage = field(default_factory=Usage)
    sub: Usage = field(default_factory=Usage)
    _started: float = field(default_factory=time.monotonic)
    _batch: tuple[int, int] = (0, 0)
    """Sub-calls asked, and failed, before the cell that runs."""
    _live: Live | None = None

    def __enter__(self) -> Self:
        if self.verbose and self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._status, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Takes note of an event, and prints what is to be seen of it."""
        match event:
            case TurnReplied(index=index, turn=turn):
                self.turns = index + 1
                self._say(f"turn {self.turns}", _thought(turn), "bold")
            case CodeStarted(code=code):
                self._batch = self.asked, self.failed
                self._block(code, "cyan")
            case SubCallStarted():
                self.asked += 1
            case SubCallEnded(call=call):
                self.answered += 1
                self.failed += call.error is not None
            case CodeEnded(output=output, error=error):
                self._say_batch()
                self._block(output, "red" if error else "dim")
            case BudgetSpent(root=root, sub=sub):
                self.root, self.sub = root, sub
            case AnswerChanged(content=content, ready=ready):
                self.answer = content
                if not ready:
                    self._say("answer so far", start_of(content, LINE_CHARS), "green")
            case RolloutEnded(rollout=rollout):
                self.rollout, self.answer = rollout, rollout.answer
            case _:
                pass

    @property
    def cost(self) -> float | None:
        """US dollars so far; None without prices, and where an engine tells no tokens."""
        return self.prices and total_cost(self.prices.root.of(self.root), self.prices.sub.of(self.sub))

    @property
    def failed_at_once(self) -> bool:
        """The rollout has ended in an error before the root LLM said anything."""
        return self.rollout is not None and self.rollout.error is not None and not self.turns

    def totals(self) -> str:
        """One line: turns, sub-calls, tokens, money, seconds."""
        parts = [counted(self.turns, "turn")]
        if self.asked:
            waiting = f"{self.answered:,} of " if self.answered < self.asked else ""
            failed = f" ({self.failed:,} failed)" if self.failed else ""
            parts.append(f"{waiting}{counted(self.asked, 'sub-call')}{failed}")
        parts.append(f"{self.root.tokens + self.sub.tokens:,} tokens")
        if self.cost is not None:
            parts.append(money(self.cost))
        return ", ".join([*parts, f"{time.monotonic() - self._started:.0f} s"])

    def _status(self) -> Text:
        return Text(self.totals(), style="dim")

    def _say_batch(self) -> None:
        asked, failed = self.asked - self._batch[0], self.failed - self._batch[1]
        if asked:
            self._say("sub-calls", f"{asked:,} asked" + (f", {failed:,} failed" if failed else ""), "magenta")

    def _say(self, what: str, text: str, style: str) -> None:
        if self.verbose:
            line = Text(f"{what}  ", style=style).append(text, style="not bold default")
            self.console.print(line, highlight=False, no_wrap=True, overflow="ellipsis", crop=True)

    def _block(self, text: str, style: str) -> None:
        if not self.verbose:
            return
        lines = text.strip("\n").splitlines()
        more = len(lines) - LINES_SHOWN - 1
        # The last line stays: it says what a traceback is about.
        shown = [*lines[:LINES_SHOWN], f"... {more:,} more lines", lines[-1]] if more > 0 else lines
        for line in shown:
            printed = Text(INDENT + visible(line), style=style)
            self.console.print(printed, highlight=False, no_wrap=True, overflow="ellipsis", crop=True)


def _thought(turn: Turn) -> str:
    """The first line of what the root LLM says outside of its code."""
    prose = visible_text(turn).split("```")[0].strip() or (turn.reasoning or "").strip()
    return start_of(prose, LINE_CHARS)
