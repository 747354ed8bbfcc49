"""Tests whether two scaffolds differ on their common tasks: McNemar's test, and how many tasks would be needed.

The size of a difference and its interval are in `stats.py` (`paired_difference`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True, slots=True)
class McNemar:
    """Tasks on which only one scaffold was right, and how likely so uneven a split is if neither is better."""

    only_ours: int
    only_theirs: int
    p: float
    """Two-sided, exact; 1.0 if the scaffolds never disagree."""


def mcnemar(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> McNemar | None:
    """McNemar's exact test, from the scores of each task's repeats (task id -> scores).

    None if a task is neither right nor wrong as a whole: a score between 0 and 1, or repeats that disagree.
    Source: Q. McNemar, Psychometrika 12 (1947), 153; exact by the binomial distribution with p = 1/2.
    """
    pairs = _pairs(ours, theirs)
    if not pairs or any(value not in (0.0, 1.0) for pair in pairs for value in pair):
        return None
    b, c = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return McNemar(b, c, min(1.0, 2 * tail / 2 ** (b + c)))


def tasks_needed(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> int | None:
    """Tasks at which a two-sided test at the 5 % level finds a difference such as the observed one, 4 times in 5.

    With d the mean and m the mean square of the paired differences, n = ((z_0.975 sqrt(m) + z_0.8 sqrt(m - d^2)) /
    d)^2. Source: R. J. Connor, Biometrics 43 (1987), 207, for binary scores, where m is the share of tasks on which
    the scaffolds disagree. The observed difference is taken for the true one, so this is an order of magnitude.
    None if no task is common or the means do not differ: then no number would do.
    """
    differences = [a - b for a, b in _pairs(ours, theirs)]
    mean = math.fsum(differences) / len(differences) if differences else 0.0
    if abs(mean) < 1e-9:
        return None
    square = math.fsum(d * d for d in differences) / len(differences)
    z_level, z_power = NormalDist().inv_cdf(1 - LEVEL / 2), NormalDist().inv_cdf(POWER)
    root = z_level * math.sqrt(square) + z_power * math.sqrt(max(0.0, square - mean * mean))
    return math.ceil((root / mean) ** 2)


def _pairs(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> list[tuple[float, float]]:
    """Mean scores of each common task."""
    return [
        (math.fsum(values) / len(values), math.fsum(other) / len(other))
        for task, values in ours.items()
        if len(values) and len(other := theirs.get(task, ()))
    ]
