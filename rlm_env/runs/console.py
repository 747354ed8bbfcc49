"""Printing for people: messages, the width of tables, and how a run that was stopped is reported.

Progress displays are in `rlm_env/evals/progress.py` and `rlm_env/train/report/metrics.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from rlm_env.readable import visible
from rlm_env.runs.errors import RunStopped
from rlm_env.runs.interrupt import Terminated

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
PLAIN_SECONDS = 60.0
"""Seconds between two lines about the same stage where there is no terminal."""
PLAIN_WIDTH = 120
"""Characters per line of a table that is written to a file or a pipe."""


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints text without markup and wrapping, so that a command in it can be copied. What an endpoint or a model has
    put into it does not steer the terminal."""
    console.print(visible(text), style=style, markup=False, highlight=False, soft_wrap=True)


def say_note(console: Console, text: str) -> None:
    """Prints what a user should know and need not act on."""
    say(console, f"note: {text}", "yellow")


@contextlib.contextmanager
def stage(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Shows that something slow goes on, and at its end how long it took: a spinner on a terminal, elsewhere a line at
    both ends and one a minute. Yields a function that says how far it is."""
    begin = told = time.monotonic()
    with console.status(text) if console.is_terminal else contextlib.nullcontext() as status:
        if status is None:
            say(console, f"{text} ...")

        def tell(more: str) -> None:
            nonlocal told
            if status is not None:
                status.update(f"{text}: {more}")
            elif time.monotonic() - told > PLAIN_SECONDS:
                told = time.monotonic()
                say(console, f"{text}: {more}")

        yield tell
    say(console, f"{text}: done after {time.monotonic() - begin:.0f} s")


def say_stopped(console: Console, stop: RunStopped | KeyboardInterrupt | Terminated) -> int:
    """Says why a run has stopped; returns the command's exit code."""
    say(console, f"\nstopped: {str(stop) or 'interrupted'}", "red")
    if isinstance(stop, RunStopped):
        return stop.exit_code
    return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED


def standard_output(plain_width: int = PLAIN_WIDTH) -> Console:
    """Standard output for tables: as wide as the terminal, or `plain_width` without one."""
    console = Console()
    return console if console.is_terminal else Console(width=plain_width)
