"""The progress of a run, per scaffold: a live table on a terminal, plain lines elsewhere.

Intervals are computed at the end only (`report.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.readable.words import money
from rlm_env.runs.console import say

LINE_SECONDS = 10.0
"""Without a terminal: at most one line in this time, and one at the end."""


@dataclass(slots=True)
class _Scaffold:
    """The counters of one scaffold."""

    total: int
    done: int = 0
    scored: int = 0
    score_sum: float = 0.0
    tokens: int = 0
    overflows: int = 0
    errors: int = 0

    @property
    def score(self) -> str:
        """The mean score so far, as text."""
        return f"{self.score_sum / self.scored:.3f}" if self.scored else "-"


@contextlib.contextmanager
def counting(console: Console, doing: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a side task is, once it takes long; yields the function that is called with (done, total)."""
    start = printed = time.monotonic()
    with console.status(doing) as status:

        def report(done: int, total: int) -> None:
            nonlocal printed
            now = time.monotonic()
            status.update(f"{doing}: {done} of {total}, {now - start:.0f} s")
            if not console.is_terminal and now - printed >= LINE_SECONDS:
                printed = now
                say(console, f"[{now - start:.0f} s] {doing}: {done} of {total}")

        yield report


class Progress:
    """The live display of a run; use it as a context manager and call `add` for every finished rollout."""

    def __init__(
        self, console: Console, scaffolds: Sequence[str], total: int, test: Callable[[], str] = lambda: ""
    ) -> None:
        """`total`: rollouts of each scaffold. `test`: what is to be told of a test that may end the run."""
        self._console = console
        self._test = test
        self._scaffolds = {scaffold: _Scaffold(total) for scaffold in scaffolds}
        self._cost: float | None = None
        self._start = self._printed = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def add(self, stats: RolloutStats, *, old: bool = False) -> None:
        """Counts a rollout; `old`: it was stored by an earlier run."""
        scaffold = self._scaffolds[stats.scaffold]
        scaffold.done += 1
        scaffold.tokens += stats.root.prompt_tokens + stats.root.completion_tokens
        scaffold.tokens += stats.sub.prompt_tokens + stats.sub.completion_tokens
        scaffold.errors += stats.outcome is Outcome.ERROR
        scaffold.overflows += stats.outcome is Outcome.OVERFLOW
        if stats.score is not None:
            scaffold.scored += 1
            scaffold.score_sum += stats.score
        if stats.cost is not None:
            self._cost = (self._cost or 0.0) + stats.cost
        if not old and not self._console.is_terminal:
            self._line()

    def _line(self) -> None:
        """Prints a plain line, where there is no terminal and the last one is old enough."""
        done = all(scaffold.done == scaffold.total for scaffold in self._scaffolds.values())
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS and not done:
            return
        self._printed = now
        parts = [
            f"{name} {scaffold.done}/{scaffold.total}, score {scaffold.score}, {scaffold.tokens:,} tokens"
            + (f", {scaffold.overflows} overflowed" if scaffold.overflows else "")
            + (f", {scaffold.errors} errors" if scaffold.errors else "")
            for name, scaffold in self._scaffolds.items()
        ]
        say(self._console, f"[{now - self._start:.0f} s] {' | '.join(parts)}{self._totals()}")

    def _totals(self) -> str:
        """The dollars so far, and the test, as text."""
        cost = "" if self._cost is None else f" | {money(self._cost)}"
        return f"{cost} | {told}" if (told := self._test()) else cost

    def _table(self) -> Table:
        """The live table on a terminal."""
        table = Table(box=None, title=f"{time.monotonic() - self._start:.0f} s{self._totals()}", title_justify="left")
        for name in ("scaffold", "", "done", "score so far", "tokens", "overflowed", "errors"):
            table.add_column(name, justify="left" if name in ("scaffold", "") else "right")
        for name, scaffold in self._scaffolds.items():
            table.add_row(
                name,
                ProgressBar(total=max(scaffold.total, 1), completed=scaffold.done, width=24),
                f"{scaffold.done}/{scaffold.total}",
                scaffold.score,
                f"{scaffold.tokens:,}",
                str(scaffold.overflows),
                f"[red]{scaffold.errors}[/red]" if scaffold.errors else "0",
            )
        return table
