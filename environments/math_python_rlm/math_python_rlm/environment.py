"""The environment `math-python-rlm`: options, tasks, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Literal

from math_python_rlm.baselines import BASELINES
from math_python_rlm.generate import PROFILES, Options, generated_tasks
from math_python_rlm.hub import HubOptions, hub_tasks
from rlm_env.authoring.options import at_least, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import math_python


class MathPython(Environment):
    """Exact mathematics with Python at hand; the problem stands in the question, there is no context.

    Options, all by keyword:

    - `dataset`: `generated`, or `hub` (INTELLECT-3-RL math through `datasets`).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless where generated, all where published).
    - `scoring`: `official` or `strict` (no credit without a box), see `rewards/rlm_rewards/math_python.py`.
    - generated: `families`, cycled over (None: all); `profile`: `standard`, or `tiny` (short sums in few words).
    - hub: `revision` (None: the tested commit); `files`, a local copy; `solve_rate`, (low, high): keeps problems that a
      small model solved so often.
    """

    name = "math-python-rlm"
    tips = (resources.files("math_python_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        dataset: Literal["generated", "hub"] = "generated",
        seed: int = 0,
        num_tasks: int | None = None,
        scoring: Literal["official", "strict"] = "official",
        families: str | Sequence[str] | None = None,
        profile: Literal["standard", "tiny"] = "standard",
        revision: str | None = None,
        files: str | Path | None = None,
        solve_rate: tuple[float, float] | None = None,
    ) -> None:
        one_of("dataset", dataset, ("generated", "hub"))
        self.dataset, self.num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, math_python.MODES)
        one_of("profile", profile, PROFILES)
        self._make: Callable[[Split], Iterator[Task]]
        if dataset == "generated":
            refuse(dataset, revision=revision, files=files, solve_rate=solve_rate)
            chosen = (
                [families] if isinstance(families, str) else list(PROFILES[profile] if families is None else families)
            )
            if not chosen:
                raise ValueError("families must name at least one family of problems")
            options = Options(seed, [one_of("families", name, PROFILES[profile]) for name in chosen], profile)
            self._make = lambda split: generated_tasks(options, split)
        else:
            refuse(dataset, families=families, profile=None if profile == "standard" else profile)
            if solve_rate is not None and not (len(solve_rate) == 2 and 0 <= solve_rate[0] <= solve_rate[1] <= 1):
                raise ValueError(f"solve_rate must be (low, high) with 0 <= low <= high <= 1, got {solve_rate!r}")
            rate = None if solve_rate is None else (solve_rate[0], solve_rate[1])
            hub = HubOptions(revision, files, rate)
            self._make = lambda split: hub_tasks(hub, split)

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: islice(self._make(split), self.num_tasks), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        official = math_python.score(rollout.answer, task.gold)
        # Both modes compare alike; strict wants a closed box besides.
        strict = official if math_python.extract(rollout.answer, "strict") else 0.0
        metrics = {"official": official, "strict": strict}
        return Score(metrics[self.scoring], metrics)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"\\boxed{{{task.gold}}}"


def refuse(dataset: str, **options: object) -> None:
    """Options that the data set does not have."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"dataset {dataset!r} has no option {', '.join(given)}")
