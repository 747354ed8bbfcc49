"""A test and an interval for the mean of bounded values that hold at every moment, so that one may stop when one likes.

Whoever looks at a p-value after each task and stops at 0.05 errs far more often than in 5 % of cases. Here a bettor
starts with one dollar and stakes the same part of the capital on each value. Where the mean is not above the supposed
one, no bet can be expected to win: by Ville's inequality the capital ever reaches 1 / a with a chance of at most a.
The capital is thus an e-value at any time, however the time was chosen. Half of the level goes to bets on "greater"
and half to bets on "less"; the interval holds all means against which neither bettor has got that far.

Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal
Statistical Society B 86 (2024), 1, arXiv:2010.09686: the hedged capital, with the mean of the capitals of bettors with
constant bets on a grid in place of one bettor. Constant bets make the capital independent of the order of the values.
What is supposed: no value's expectation, given those before, is above (below) the mean in question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BETS = (np.arange(32) + 0.5) / 32
"""The parts of the capital that the bettors stake."""
STEPS = 50
"""Bisections of an interval's bound."""


class Capital:
    """What the bettors have, from one paired difference in [-1, 1] to the next; of many runs at once in simulations."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._greater = np.zeros((*shape, len(BETS)))
        self._less = np.zeros((*shape, len(BETS)))

    def add(self, difference: float | np.ndarray) -> None:
        """Takes in the next difference (shape [*shape])."""
        staked = np.asarray(difference)[..., None] * BETS
        self._greater += np.log1p(staked)
        self._less += np.log1p(-staked)

    @property
    def greater(self) -> np.ndarray:
        """Logarithm of the e-value against "the mean is at most 0" (shape [*shape])."""
        return _log_mean(self._greater)

    @property
    def less(self) -> np.ndarray:
        """Logarithm of the e-value against "the mean is at least 0" (shape [*shape])."""
        return _log_mean(self._less)


def anytime_bounds(values: Sequence[float], level: float, lowest: float, highest: float) -> tuple[float, float]:
    """Bounds of the mean of values in [lowest, highest], at least one, that hold with a chance of `1 - level` at all
    numbers of values together."""
    scaled = (np.asarray(values, float) - lowest) / (highest - lowest)
    wide = highest - lowest
    low, high = _lower_bound(scaled, level / 2.0), 1.0 - _lower_bound(1.0 - scaled, level / 2.0)
    return lowest + wide * low, lowest + wide * high


def _lower_bound(values: np.ndarray, level: float) -> float:
    """The smallest mean that values in [0, 1] do not speak against at this level. The capital of bets against a mean
    falls as the mean grows."""
    distinct, counts = np.unique(np.clip(values, 0.0, 1.0), return_counts=True)
    below, above = 0.0, float(values.mean())
    for _ in range(STEPS):
        middle = (below + above) / 2.0
        if middle == 0.0:
            break
        wins = np.log1p(BETS * (distinct[:, None] / middle - 1.0))
        if _log_mean(counts @ wins) >= -math.log(level):
            below = middle
        else:
            above = middle
    return below


def _log_mean(logs: np.ndarray) -> np.ndarray:
    """Logarithm of the mean over the last axis of numbers whose logarithms are given."""
    top = logs.max(axis=-1)
    return top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
