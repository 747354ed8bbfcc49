"""Errors of scorers that are not exceptions of `Environment.score` itself."""

from __future__ import annotations

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
