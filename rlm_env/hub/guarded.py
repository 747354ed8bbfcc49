"""Calls of an environment's own code, which may raise anything, end the program, or never come back."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from rlm_env.hub.findings import Finding
from rlm_env.readable.words import start_of
from rlm_env.scoring.errors import describe_exception

CALL_SECONDS = 60.0
"""What one call may take."""
LONGEST = 400
"""Characters of an exception that are shown."""


class NoEnd(BaseException):
    """A call did not come back. `finding` says which. Not an Exception, so that the environment does not catch it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


@contextlib.contextmanager
def environment_code(rule: str, where: str, seconds: float | None = None) -> Iterator[None]:
    """Around a call of an environment's code: for the finding of `rule` that it may become.

    Raises RuntimeError where the code ends the program, NoEnd where it takes longer than `seconds` (CALL_SECONDS; only
    the main thread can be interrupted), else what the code raises.
    """
    limit = CALL_SECONDS if seconds is None else seconds

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise NoEnd(Finding(rule, where, f"no end after {limit:g} s", "let the code come to an end, and sooner"))

    if threading.current_thread() is not threading.main_thread():
        with _program_goes_on():
            yield
        return
    before = signal.signal(signal.SIGALRM, interrupt)
    begin = time.monotonic()
    pending, _ = signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with _program_goes_on():
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if pending:  # somebody else's alarm, such as that of a test
            signal.setitimer(signal.ITIMER_REAL, max(pending - (time.monotonic() - begin), 0.001))


def raised(error: BaseException) -> str:
    """An exception in one line, with the place that raised it."""
    told = error.__cause__ if isinstance(error.__cause__, SystemExit) else error
    return f"raises {start_of(describe_exception(told), LONGEST)}"


@contextlib.contextmanager
def _program_goes_on() -> Iterator[None]:
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"it ends the program: SystemExit({error.code!r})") from error
