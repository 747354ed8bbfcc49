"""A rollout as people read it without a browser: a short `repr`, a page on the terminal, a card in a notebook.

Nothing that a model wrote is trusted: control characters are made visible, HTML is escaped. `Rollout` has these as
methods, so this room knows its shape only (`Shown`). Not covered: the viewer (`rlm_env/view/`).
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class Readable:
    """What `Rollout` inherits."""

    __slots__ = ()

    def __repr__(self) -> str:
        from rlm_env.readable.words import one_line

        return one_line(self)

    def show(self, console: Console | None = None, *, lines: int = 24) -> None:
        """Prints the rollout turn by turn: thoughts, code, sub-calls, output, the answer as it changed.

        `console`: a rich console; None for standard output. `lines`: most lines of one text; 0 for all.
        """
        from rlm_env.readable.terminal import print_rollout

        print_rollout(self, console, lines)

    def _repr_html_(self) -> str:
        from rlm_env.readable.notebook import rollout_html

        return rollout_html(self)


def visible(text: Any) -> str:
    """The text with control characters as symbols, so that it can neither color, move nor clear a terminal, and without
    lone surrogates, which none can print."""
    return str(text).translate(_SYMBOLS)


def escaped(text: Any) -> str:
    """The text as a part of an HTML page, with control characters as symbols."""
    return escape(visible(text))


_SYMBOLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
_SYMBOLS |= {127: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD) | dict.fromkeys(range(0x202A, 0x202F), 0xFFFD)
_SYMBOLS |= dict.fromkeys([*range(0x2066, 0x206A), *range(0xD800, 0xE000)], 0xFFFD)
