"""Seeded draws that give the same values on every machine and Python version.

Python promises that `random.Random(text).random()` keeps its sequence across versions, but not so for `choice`,
`sample` and `shuffle`. So everything here is made of `random()` and integer arithmetic, without logarithms and powers,
whose last bit depends on the C library.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of random draws with a name; equal names give equal streams."""

    def __init__(self, *name: object) -> None:
        self.random = random.Random("/".join(str(part) for part in name)).random

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self.random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + int(self.random() * (high - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """`n` different items in random order."""
        return self.shuffled(items)[:n]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A shuffled copy (Fisher-Yates)."""
        pool = list(items)
        for last in range(len(pool) - 1, 0, -1):
            other = int(self.random() * (last + 1))
            pool[last], pool[other] = pool[other], pool[last]
        return pool


def wheel(weights: Sequence[int]) -> list[int]:
    """A list that holds each index i `weights[i]` times: `draw.choice(wheel(weights))` draws by weight in constant
    time. The sum of the weights should not exceed some thousands."""
    slots = [0] * sum(weights)
    start = 0
    for index, end in enumerate(accumulate(weights)):
        slots[start:end] = [index] * (end - start)
        start = end
    return slots
