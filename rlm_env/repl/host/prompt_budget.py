"""The memory that the prompts of all REPLs of a pool may take on the host until they are answered.

Without it, the bound would be that of one REPL times their number. A batch claims its room before its prompts are read;
where there is none, its REPL waits in line, and what it has not sent yet stays in its own process. Small batches have
a line and a quarter of the room of their own, so that one REPL's large batch does not keep all others waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_SMALL = 32
"""A batch is small if it takes at most the room divided by this."""


@dataclass(eq=False)
class Claim:
    """Room for one batch. Give it back, whether it was granted or not."""

    size: int
    on_granted: Callable[[], None]
    line: ClaimLine
    granted: bool = False

    def give_back(self) -> None:
        """Frees the room, or leaves the line. Safe to call twice."""
        self.line.give_back(self)


class ClaimLine:
    """Grants claims in the order in which they come."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Claim] = deque()
        self.used = 0

    def claim(self, size: int, on_granted: Callable[[], None]) -> Claim:
        """Asks for `size` bytes. Where they are not granted at once, `on_granted` is called when they are."""
        claim = Claim(size, on_granted, self)
        if not self._waiting and self._fits(claim):
            self._grant(claim)
        else:
            self._waiting.append(claim)
        return claim

    def give_back(self, claim: Claim) -> None:
        if claim.granted:
            claim.granted = False
            self.used -= claim.size
        elif claim in self._waiting:
            self._waiting.remove(claim)
        while self._waiting and self._fits(self._waiting[0]):
            waiting = self._waiting.popleft()
            self._grant(waiting)
            waiting.on_granted()

    def _fits(self, claim: Claim) -> bool:
        # One that is larger than all the room gets its turn alone.
        return self.used == 0 or self.used + claim.size <= self._limit

    def _grant(self, claim: Claim) -> None:
        claim.granted = True
        self.used += claim.size


class PromptBudget:
    """Room of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._most_of_small = limit // _SMALL
        self._small, self._large = ClaimLine(limit // 4), ClaimLine(limit - limit // 4)

    @property
    def used(self) -> int:
        """Bytes that are granted."""
        return self._small.used + self._large.used

    def claim(self, size: int, on_granted: Callable[[], None]) -> Claim:
        """Asks for `size` bytes. Where they are not granted at once, `on_granted` is called when they are."""
        line = self._small if size <= self._most_of_small else self._large
        return line.claim(size, on_granted)
