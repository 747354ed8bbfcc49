"""Tests whether two scaffolds differ on their common tasks, and how many tasks would be needed to tell.

McNemar's test where every score is 0 or 1, a sign-flip test for any scores, and Holm's correction where several tests
are made. The size of a difference and its interval are in `stats.py` (`paired_difference`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from rlm_env.evals.betting import Capital

LEVEL, POWER = 0.05, 0.8
FLIPS = 10_000
"""Random sets of signs of `sign_flip_p`."""


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
    tail = ways = 1
    for k in range(min(b, c)):
        ways = ways * (b + c - k) // (k + 1)  # the next binomial coefficient: from scratch, each would take as long
        tail += ways
    return McNemar(b, c, min(1.0, 2 * tail / 2 ** (b + c)))


def two_sided_p(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], exact: McNemar | None, seed: int = 0
) -> float:
    """McNemar's p where every score is 0 or 1 (`exact`), otherwise that of a sign-flip test."""
    return sign_flip_p(ours, theirs, seed) if exact is None else exact.p


def sign_flip_p(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], seed: int = 0) -> float:
    """How likely a mean difference at least as large as the observed one is if the scaffolds of each task could as
    well be exchanged. Two-sided; 1.0 without common tasks.

    Signs are drawn at random, `FLIPS` times, and the observed ones count as one draw more, which keeps the level exact.
    Source: E. J. G. Pitman, Supplement to the JRSS 4 (1937), 119; B. Phipson and G. K. Smyth, arXiv:1603.05766, for the
    draw more.
    """
    sizes, counts = np.unique([abs(a - b) for a, b in _pairs(ours, theirs)], return_counts=True)
    observed = abs(math.fsum(a - b for a, b in _pairs(ours, theirs)))
    if not observed:
        return 1.0
    rng = np.random.default_rng(seed)
    # of tasks whose differences are of one size, only how many are positive counts
    hits = 0
    for rows in [1_000] * (FLIPS // 1_000):
        positive = rng.binomial(counts, 0.5, size=(rows, len(counts)))
        hits += int((np.abs((2 * positive - counts) @ sizes) >= observed * (1 - 1e-9)).sum())
    return (hits + 1) / (FLIPS + 1)


def anytime_p(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> float:
    """A two-sided p-value of the mean difference that holds whenever one stops: 2 / the e-value (`betting.py`)."""
    capital = Capital()
    for a, b in _pairs(ours, theirs):
        capital.add(a - b)
    return min(1.0, 2.0 * math.exp(-max(0.0, float(capital.greater), float(capital.less))))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, in their order, each corrected for how many there are.

    To reject what is at most 0.05 then errs in any of them in at most 5 % of cases, however the tests depend on each
    other. Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65. Raises ValueError unless each is in [0, 1].
    """
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1: {list(p_values)}")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


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
