"""Ends a run when a test has decided between scaffolds: `--until "rlm>standard"`.

A task counts once all its rollouts have ended in every scaffold that is compared, and in the order in which tasks were
drawn, so that quick rollouts do not come first. A task's repeats are averaged. A task on which a scaffold has no score,
because its rollouts ended in errors, is passed over, as in the tables. The test (`betting.py`) may be looked at after
every task and may go on later with more tasks. It decides for `>` or for `<`, or for neither by the end of the tasks.

Several conditions are corrected by Holm's method over both sides of each (`pairs.py`), with p = 1 / the largest e-value
so far; several environments share the level equally (`EvalConfig.runs`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rlm_env.evals.betting import Capital
from rlm_env.evals.conditions import Condition
from rlm_env.evals.config import EvalRunConfig
from rlm_env.evals.pairs import holm
from rlm_env.evals.rollout_stats import Key, RolloutStats
from rlm_env.evals.stats import Estimate, anytime_estimate
from rlm_env.readable.words import counted
from rlm_env.task import Task

METHOD = "betting, hedged capital on a grid of constant bets (arXiv:2010.09686)"
Decision = Literal[">", "<"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the test says of one condition: at its decision, or so far."""

    ours: str
    theirs: str
    decision: Decision | None
    """Which of the two is better; None: undecided."""
    tasks: int
    """Tasks that the test has counted."""
    difference: Estimate | None
    """Mean of (ours - theirs) over those, with a 95 % interval that holds at any time."""
    e_greater: float
    """Largest e-value so far against "ours is not better"."""
    e_less: float
    """Largest e-value so far against "ours is not worse"."""
    p: float
    """The smaller of the two anytime-valid p-values, corrected by Holm for all sides of all conditions."""

    def __str__(self) -> str:
        if self.decision is None:
            return f"{self.ours}>{self.theirs} undecided"
        return f"{self.ours}{self.decision}{self.theirs}"


@dataclass(frozen=True, slots=True)
class Stopping:
    """How the test of a run went."""

    method: str
    level: float
    """Share of runs with a wrong decision that is allowed."""
    tasks: int
    """Tasks of the run."""
    begun: int
    """Tasks of which something was sampled; those that were under way at the decision were finished."""
    passed_over: int
    """Tasks without a score in one of the scaffolds."""
    decided: bool
    """All conditions are decided, which ended the run."""
    saved: int
    """Tasks that were not begun because of that."""
    verdicts: list[Verdict]


def stored_stopping(summary: Mapping[str, Any]) -> Stopping | None:
    """The test in a summary.json; None where there is none."""
    found = summary.get("stopping")
    if not found:
        return None
    verdicts = [
        Verdict(**{**one, "difference": one["difference"] and Estimate(**one["difference"])})
        for one in found["verdicts"]
    ]
    return Stopping(**{**found, "verdicts": verdicts})


@dataclass(slots=True)
class _Side:
    """The test of one condition."""

    condition: Condition
    capital: Capital = field(default_factory=Capital)
    differences: list[float] = field(default_factory=list)
    most: dict[Decision, float] = field(default_factory=lambda: {">": 0.0, "<": 0.0})
    """Logarithms of the largest e-values."""
    decision: Decision | None = None

    def add(self, difference: float) -> None:
        self.differences.append(difference)
        self.capital.add(difference)
        self.most[">"] = max(self.most[">"], float(self.capital.greater))
        self.most["<"] = max(self.most["<"], float(self.capital.less))


class UntilTest:
    """The test of a run, taken forward task by task."""

    def __init__(self, conditions: Sequence[Condition], tasks: Sequence[str], repeats: int, level: float) -> None:
        """`tasks`: ids of all tasks of the run in the order drawn; `level`: of all conditions together."""
        self._sides = [_Side(condition) for condition in conditions]
        self._scaffolds = tuple(dict.fromkeys(name for one in conditions for name in (one.ours, one.theirs)))
        self._tasks, self._repeats, self._level = tasks, repeats, level
        self._places = {task: place for place, task in enumerate(tasks)}
        self._moved = asyncio.Event()
        self._passed_over = 0
        self.counted = 0
        """Tasks that were taken in or passed over: the first ones of the run."""

    @property
    def scaffolds(self) -> tuple[str, ...]:
        """Those that are compared."""
        return self._scaffolds

    @property
    def decided(self) -> bool:
        """All conditions are decided. Never where there are none."""
        return bool(self._sides) and all(side.decision for side in self._sides)

    def advance(self, stats: Mapping[Key, RolloutStats], waiting: Collection[Key] = ()) -> None:
        """Takes in the next tasks whose rollouts have all ended; nothing more after a decision. `waiting`: rollouts
        that will be made again."""
        self.wake()
        while not self.decided and self.counted < len(self._tasks):
            task = self._tasks[self.counted]
            keys = {name: [(name, task, repeat) for repeat in range(self._repeats)] for name in self._scaffolds}
            if any(key not in stats or key in waiting for row in keys.values() for key in row):
                return
            self.counted += 1
            scores = {
                name: [score for key in row if (score := stats[key].score) is not None] for name, row in keys.items()
            }
            self._passed_over += not all(scores.values())
            self._take(scores)

    async def turn(self, task: str, ahead: int, stopped: Callable[[], bool]) -> None:
        """Returns when a task may begin: when it is among the `ahead` tasks after those that are counted, so that a
        rollout that takes long does not let the run begin what a decision would save. At once without conditions,
        after a decision, and when the run is `stopped`."""
        while self._sides and not self.decided and not stopped() and self._places[task] >= self.counted + ahead:
            self._moved.clear()
            await self._moved.wait()

    def wake(self) -> None:
        """Lets those that wait in `turn` look again."""
        self._moved.set()

    def _take(self, scores: Mapping[str, list[float]]) -> None:
        """Takes in a task, from the scores of its repeats by scaffold, and decides what can be decided."""
        for side in self._sides:
            ours, theirs = scores[side.condition.ours], scores[side.condition.theirs]
            if side.decision is None and ours and theirs:
                side.add(float(np.mean(ours) - np.mean(theirs)))
        p_values = self._p_values()
        for side in self._sides:
            for sign in side.most:
                if side.decision is None and p_values[side.condition, sign] <= self._level:
                    side.decision = sign

    def _p_values(self) -> dict[tuple[Condition, Decision], float]:
        """The anytime-valid p-value of each side of each condition, corrected by Holm."""
        plain: dict[tuple[Condition, Decision], float] = {
            (side.condition, sign): math.exp(-most) for side in self._sides for sign, most in side.most.items()
        }
        return dict(zip(plain, holm(list(plain.values())), strict=True))

    @property
    def told(self) -> str:
        """How far it is, in few words; empty without conditions."""
        p_values = self._p_values()
        return ", ".join(
            f"{side.condition}: p {min(p_values[side.condition, sign] for sign in side.most):.2g} after "
            f"{counted(len(side.differences), 'task')}"
            for side in self._sides
        )

    def record(self) -> dict[str, Any]:
        """What the record of a run says of a decision, as plain TOML values."""
        return {
            "test": METHOD,
            "level": self._level,
            "tasks": self.counted,
            "decided": [f"{side.condition.ours}{side.decision}{side.condition.theirs}" for side in self._sides],
            "e_values": [_exp(max(side.most.values())) for side in self._sides],
        }

    def stopping(self, stats: Mapping[Key, RolloutStats]) -> Stopping | None:
        """How it went so far; None without conditions."""
        if not self._sides:
            return None
        p_values = self._p_values()
        verdicts = [
            Verdict(
                side.condition.ours,
                side.condition.theirs,
                side.decision,
                len(side.differences),
                anytime_estimate(side.differences, -1.0, 1.0),
                _exp(side.most[">"]),
                _exp(side.most["<"]),
                min(p_values[side.condition, sign] for sign in side.most),
            )
            for side in self._sides
        ]
        begun = len({task for _, task, _ in stats} & set(self._tasks))
        saved = len(self._tasks) - begun if self.decided else 0
        return Stopping(METHOD, self._level, len(self._tasks), begun, self._passed_over, self.decided, saved, verdicts)


def until_test(config: EvalRunConfig, tasks: Sequence[Task]) -> UntilTest:
    """The test of a run that has seen nothing yet; one without conditions never decides."""
    return UntilTest(config.conditions, [task.id for task in tasks], config.repeats, config.until_level)


def measured_tasks(test: UntilTest, tasks: list[Task], stats: Collection[Key]) -> list[Task]:
    """The tasks that baselines are measured on: all, or those begun if the test has ended the run."""
    begun = {task_id for _, task_id, _ in stats}
    return [task for task in tasks if task.id in begun] if test.decided else tasks


def _exp(logarithm: float) -> float:
    """An e-value, or the largest one that JSON can hold."""
    return math.exp(min(logarithm, 700.0))
