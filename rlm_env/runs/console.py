"""What the commands have in common: how they say things, where tables go, and how they end when they are stopped.

Covered: text for people, exit codes of a stop. Not covered: progress displays, and what the commands do.
"""

from __future__ import annotations

from rich.console import Console

from rlm_env.runs.errors import RunStopped
from rlm_env.runs.interrupt import Terminated

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
PLAIN_WIDTH = 120
"""Characters of a line of a table that is written to a file or a pipe."""


def say(console: Console, text: str, style: str | None = None) -> None:
    """Text as it is: no markup, no wrapping, so that a command can be copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def say_stopped(console: Console, stop: RunStopped | KeyboardInterrupt | Terminated) -> int:
    """Says why a run has stopped; returns the command's exit code."""
    say(console, f"\nstopped: {str(stop) or 'interrupted'}", "red")
    if isinstance(stop, RunStopped):
        return stop.exit_code
    return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED


def standard_output(plain_width: int = PLAIN_WIDTH) -> Console:
    """For tables: as wide as the terminal, or `plain_width` where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=plain_width)
