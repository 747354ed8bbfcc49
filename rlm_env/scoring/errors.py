"""Errors of scorers that are not exceptions of `Environment.score` itself, and how any exception is described."""

from __future__ import annotations

import re
import traceback

from rlm_env.llm.base import LLMError
from rlm_env.rollout import Rollout, StopReason

TRACEBACK = "traceback"
"""Key of `Rollout.info`: where the exception behind `Rollout.error` was raised."""
FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)
REMEDY = "; the environment's `score_limits` sets the limit"


class ScorerKilled(Exception):
    """A scorer broke a limit or died. The rollout has no score; the message names the limit and how to change it."""


class RemoteTraceback(Exception):
    """The cause of an exception that `score` raised in a scorer process: the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def failed(rollout: Rollout, error: BaseException) -> Rollout:
    """The rollout, with an exception as its end."""
    rollout.stop_reason, rollout.error = StopReason.ERROR, describe_exception(error)
    rollout.info[TRACEBACK] = traceback_text(error)
    return rollout


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception; of one that was raised in a scorer process, the traceback there."""
    if isinstance(error.__cause__, RemoteTraceback):
        return error.__cause__.text.strip()
    return "".join(traceback.format_exception(error)).strip()


def describe_exception(error: BaseException) -> str:
    """One line: the exception, and the file, line and function that raised it."""
    text = f"{type(error).__name__}: {error}".strip()
    frames = [frame for frame in FRAME.finditer(traceback_text(error)) if not frame["file"].startswith("<")]
    if isinstance(error, LLMError | SyntaxError) or not frames:
        return text
    last = frames[-1]
    return f"{text} ({last['file'].rsplit('/', 1)[-1]}, line {last['line']}, in {last['function']})"
