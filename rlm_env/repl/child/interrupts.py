"""Where SIGINT may strike: in the model's code, never in the middle of a frame.

The host's time-out is a SIGINT. Raised inside a half-read frame it would desynchronize the channel, so our own
code runs shielded: the signal is noted, and raised at the next point where nothing is half done.
"""

from __future__ import annotations

# Not `signal`, whose enums cost a step several microseconds. Typeshed has no stub for it.
import _signal  # pyright: ignore[reportMissingImports]
import threading
from typing import Any

# Kept under names of our own: a cell may set `signal.signal = None`.
_getsignal, _set_handler, _setitimer, _SIGINT = _signal.getsignal, _signal.signal, _signal.setitimer, _signal.SIGINT
_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)


class Interrupts:
    """SIGINT as KeyboardInterrupt, in the main thread and between `allow` and `forbid` only."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._get_ident = threading.get_ident
        self._allowed = False
        self._pending = False
        self._handler = self._strike

    def install(self) -> None:
        """Installs the handler, again where a cell has replaced it, and stops timers that a cell has left running."""
        if _getsignal(_SIGINT) is not self._handler:
            _set_handler(_SIGINT, self._handler)
        for timer in _TIMERS:
            _setitimer(timer, 0)

    def _strike(self, _signal: int, _frame: Any) -> None:
        """The handler of SIGINT."""
        if self._allowed:
            raise KeyboardInterrupt
        self._pending = True

    def allow(self) -> None:
        """The model's code begins. A signal from before does not count."""
        self._pending = False
        self._allowed = True

    def forbid(self) -> None:
        self._allowed = False

    def shield(self) -> bool:
        """Our own code begins, called from the model's. Returns what `open`, `close` and `unshield` need."""
        if self._get_ident() != self._main:
            return False
        before, self._allowed = self._allowed, False
        return before

    def open(self, before: bool) -> None:
        """Within a shield: a wait begins in which nothing is half done. Raises a signal that was held back."""
        if before:
            self._allowed = True
            if self._pending:
                self._pending = False
                raise KeyboardInterrupt

    def close(self, before: bool) -> None:
        """Within a shield: the wait is over."""
        if before:
            self._allowed = False

    def unshield(self, before: bool) -> None:
        """Back to the model's code. Raises a signal that was held back."""
        self.open(before)
