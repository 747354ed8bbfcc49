"""How often the test of `rlm-env eval --until` decides wrongly, and how many tasks it saves, by simulation.

Usage: python scripts/simulate_until.py [--runs 10000] [--tasks 500] [--level 0.05]

Prints one JSON object per line: shares of runs and numbers of tasks. Each run draws the paired differences of its tasks
and looks at the test after every task, as an eval does. Nulls have a mean of 0: every decision is wrong. In the others
a decision for "less" is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable

import numpy as np

from rlm_env.evals.betting import Capital

Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""(generator, number of runs, place of the task) -> differences in [-1, 1] (shape [runs])."""


def binary(ours: float, theirs: float, repeats: int = 1) -> Draw:
    """Right or wrong, independently in both scaffolds, averaged over repeats."""

    def draw(rng: np.random.Generator, number: int, place: int) -> np.ndarray:
        del place
        return (rng.binomial(repeats, ours, number) - rng.binomial(repeats, theirs, number)) / repeats

    return draw


def choice(values: list[float], chances: list[float]) -> Draw:
    """One of a few values."""
    return lambda rng, number, _: rng.choice(values, size=number, p=chances)


NULLS: dict[str, Draw] = {
    "uniform": lambda rng, number, _: rng.uniform(-1, 1, number),
    "right or wrong, 0.5 each": binary(0.5, 0.5),
    "right or wrong, 0.95 each": binary(0.95, 0.95),
    "four repeats, 0.3 each": binary(0.3, 0.3, repeats=4),
    "90 % ties": choice([-1, 0, 1], [0.05, 0.9, 0.05]),
    "skewed: -0.1, seldom 0.9": choice([-0.1, 0.9], [0.9, 0.1]),
    "skewed: 0.02, seldom -0.98": choice([0.02, -0.98], [0.98, 0.02]),
    "lengths in turn: better, worse": lambda rng, number, place: (-1) ** place * rng.binomial(1, 0.5, number),
    "small: normal, sd 0.05": lambda rng, number, _: np.clip(rng.normal(0, 0.05, number), -1, 1),
}
"""Means of 0."""
ALTERNATIVES: dict[str, Draw] = {
    "0.9 against 0.5": binary(0.9, 0.5),
    "0.6 against 0.4": binary(0.6, 0.4),
    "0.55 against 0.45": binary(0.55, 0.45),
    "0.55 against 0.45, four repeats": binary(0.55, 0.45, repeats=4),
    "better on 5 %, else ties": choice([0, 1], [0.95, 0.05]),
    "normal, 0.1, sd 0.3": lambda rng, number, _: np.clip(rng.normal(0.1, 0.3, number), -1, 1),
}
"""Ours is better."""


def decisions(draw: Draw, runs: int, tasks: int, level: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What each run decides (1: greater, -1: less, 0: nothing) and after how many tasks (shape [runs] each)."""
    rng = np.random.default_rng(seed)
    capital, threshold = Capital((runs,)), math.log(2.0 / level)
    decided, after = np.zeros(runs, int), np.full(runs, tasks)
    for task in range(1, tasks + 1):
        capital.add(draw(rng, runs, task))
        for sign, evidence in ((1, capital.greater), (-1, capital.less)):
            new = (decided == 0) & (evidence >= threshold)
            decided[new], after[new] = sign, task
    return decided, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--level", type=float, default=0.05)
    options = parser.parse_args()
    facts = {"bench": "until", "runs": options.runs, "most_tasks": options.tasks, "level": options.level}
    for kind, draws in (("null", NULLS), ("better", ALTERNATIVES)):
        for name, draw in draws.items():
            decided, after = decisions(draw, options.runs, options.tasks, options.level)
            right = np.mean(decided == 1) if kind == "better" else 0.0
            shares = {"right": float(right), "wrong": float(np.mean(decided != 0) - right)}
            tasks = {"tasks": round(float(after.mean()), 1), "median": float(np.median(after))}
            print(json.dumps({**facts, "kind": kind, "differences": name, **shares, **tasks}), flush=True)


if __name__ == "__main__":
    main()
