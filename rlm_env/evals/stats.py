"""Statistics of scores that lie in [0, 1], several of them per task.

A mean with a 95 % interval clustered by task, pass@k, the majority vote, paired differences between scaffolds. Every
task counts the same, however many of its repeats were scored. Tests of a difference are in `pairs.py`.

Repeats of one task are not independent, so tasks are what is resampled. Intervals are percentile bootstraps
with the levels widened for few tasks ("expanded percentile", T. Hesterberg, "What Teachers Should Know About
the Bootstrap", arXiv:1411.5279). Where all tasks agree there is nothing to resample and the exact
bound for bounded values takes over: with every score 0 or every score 1 it is Clopper and Pearson's.
A few tasks that disagree a little still get too short an interval: what was not seen cannot be resampled.

Those intervals suppose that the number of tasks was chosen beforehand. With `anytime` on, the interval holds at every
number of tasks together (`betting.py`), as is needed where a test ends the run; it is wider.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from rlm_env.evals.betting import anytime_bounds

LEVEL = 0.95
RESAMPLES = 10_000
MANY = 1_000
"""Tasks from which draws of few distinct values are counted by value: 45 times as fast for 5,000 tasks."""
AGREEMENT = 0.001
"""Values that differ by less than this part of their range agree: resampling them would promise far too much."""
CORRECT = 1.0 - 1e-9
"""From this score on an answer counts as correct (pass@k is about right or wrong)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tasks and its 95 % interval."""

    mean: float
    low: float
    high: float
    tasks: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def clustered_mean(scores: Mapping[str, Sequence[float]], seed: int = 0, *, anytime: bool = False) -> Estimate | None:
    """The mean score, from the scores of each task's repeats (task id -> scores in [0, 1]).

    None where no task has a score.
    """
    means = [float(np.mean(values)) for values in scores.values() if len(values)]
    return _estimate(means, 0.0, 1.0, seed, anytime=anytime)


def paired_difference(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], seed: int = 0, *, anytime: bool = False
) -> Estimate | None:
    """Mean of (ours - theirs), in [-1, 1], over the tasks that both have scores for.

    None where there is no such task.
    """
    common = [task for task, values in ours.items() if len(values) and len(theirs.get(task, ()))]
    differences = [float(np.mean(ours[task]) - np.mean(theirs[task])) for task in common]
    return _estimate(differences, -1.0, 1.0, seed, anytime=anytime)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that at least one of `k` of the `samples` is correct, each subset being as likely.

    Unbiased; source: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv:2107.03374, eq. 1.
    Raises ValueError unless 0 <= correct <= samples and 1 <= k <= samples.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@k needs 0 <= correct <= samples and 1 <= k <= samples, got {correct}, {samples}, {k}")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def mean_pass_at_k(
    scores: Mapping[str, Sequence[float]], k: int, seed: int = 0, *, anytime: bool = False
) -> Estimate | None:
    """pass@k over the tasks with at least `k` scores. None where there is no such task."""
    values = [
        pass_at_k(len(task), sum(score >= CORRECT for score in task), k) for task in scores.values() if len(task) >= k
    ]
    return _estimate(values, 0.0, 1.0, seed, anytime=anytime)


def majority_vote(
    answers: Mapping[str, Sequence[tuple[str, float]]], seed: int = 0, *, anytime: bool = False
) -> Estimate | None:
    """The score of each task's most frequent answer (task id -> [(answer, score)]), averaged over tasks.

    Answers are compared without case and outer or repeated blanks. Empty answers do not vote; a task with no
    other scores 0. Tied answers count with the mean of their scores, so that no order of arrival matters.
    """
    return _estimate([_vote(votes) for votes in answers.values() if votes], 0.0, 1.0, seed, anytime=anytime)


def _vote(votes: Sequence[tuple[str, float]]) -> float:
    """The score of the most frequent answer; the mean of several that are equally frequent."""
    ballots: dict[str, list[float]] = defaultdict(list)
    for answer, score in votes:
        if text := " ".join(answer.split()).casefold():
            ballots[text].append(score)
    if not ballots:
        return 0.0
    most = max(map(len, ballots.values()))
    return float(np.mean([np.mean(scores) for scores in ballots.values() if len(scores) == most]))


def _estimate(
    values: list[float], lowest: float, highest: float, seed: int, *, anytime: bool = False
) -> Estimate | None:
    """Mean and interval of one value per task, each in [lowest, highest]."""
    if not values:
        return None
    if anytime:
        return anytime_estimate(values, lowest, highest)
    mean = math.fsum(values) / len(values)
    if max(values) - min(values) < AGREEMENT * (highest - lowest):
        low, high = agreement_bounds(mean, len(values), lowest, highest)
    else:
        low, high = bootstrap_bounds(np.asarray(values), seed)
    return Estimate(mean, min(low, mean), max(high, mean), len(values))


def anytime_estimate(values: Sequence[float], lowest: float, highest: float) -> Estimate | None:
    """Mean and interval, valid whenever one stops, of one value per task, each in [lowest, highest]; None without
    values."""
    if not len(values):
        return None
    mean = math.fsum(values) / len(values)
    low, high = anytime_bounds(values, 1.0 - LEVEL, lowest, highest)
    return Estimate(mean, min(low, mean), max(high, mean), len(values))


def agreement_bounds(value: float, n: int, lowest: float, highest: float) -> tuple[float, float]:
    """Bounds of the mean when all `n` draws were `value`.

    A distribution that gives `value` less often than q = (alpha / 2) ** (1 / n) would have shown something else
    by then; the rest, 1 - q, may lie anywhere in [lowest, highest].
    """
    often = ((1.0 - LEVEL) / 2.0) ** (1.0 / n)
    return value * often + lowest * (1.0 - often), value * often + highest * (1.0 - often)


def bootstrap_bounds(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Expanded percentile interval of the mean of `values` (shape [tasks], at least 2)."""
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(values) > MANY and 100 * len(distinct) < len(values):
        # the same draws, counted by value instead of made one by one
        means = rng.multinomial(len(values), counts / len(values), size=RESAMPLES) @ distinct / len(values)
    else:
        means = np.concatenate(
            [  # in chunks: 10,000 x 1,000 indices at once would be 80 MB
                values[rng.integers(0, len(values), size=(rows, len(values)))].mean(axis=1)
                for rows in [1_000] * (RESAMPLES // 1_000)
            ]
        )
    tail = expanded_tail(len(values))
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def expanded_tail(n: int) -> float:
    """The share that is cut off at each end for `n` tasks: 2.5 % for many, less for few.

    Phi(-sqrt(n / (n - 1)) * t), t being Student's quantile for n - 1 degrees of freedom.
    """
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(n - 1))


def student_quantile(degrees: int) -> float:
    """Student's t at the upper 2.5 %, by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5), exact below 3.

    Within 0.2 % of the true value from 3 degrees of freedom on.
    """
    p = 1.0 - (1.0 - LEVEL) / 2.0
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2.0 / (1.0 - (2 * p - 1) ** 2))
    z = NormalDist().inv_cdf(p)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * degrees**4)
    )
