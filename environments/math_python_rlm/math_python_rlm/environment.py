"""The environment `math-python-rlm`: tasks and scores. Its options are in `datasets.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from itertools import islice
from typing import Any, Literal

from math_python_rlm.baselines import BASELINES
from math_python_rlm.datasets import DATASETS
from rlm_env.authoring.indexed import IndexedTasks, check_index
from rlm_env.authoring.options import at_least, dataset_options, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import math_python


class MathPython(Environment):
    """Exact mathematics with Python at hand; the problem is in the question, there is no context.

    Options, all by keyword:

    - `dataset`: `generated`, or `hub` (INTELLECT-3-RL math through `datasets`).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless where generated, all where published).
    - `scoring`: `official` or `strict`, see `rewards/rlm_rewards/math_python.py`.
    - the options of the data set, which are the fields of its class in `math_python_rlm/datasets.py`:
      `GeneratedOptions`, `HubOptions`. An option of another data set is refused.
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
        **options: Any,
    ) -> None:
        source = dataset_options(dataset, DATASETS, options, ("dataset", "seed", "num_tasks", "scoring"))
        self.dataset, self.num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, math_python.MODES)
        self._stream = source.stream(seed)

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: islice(self._stream(split), self.num_tasks), split)

    @property
    def makes_any_task(self) -> bool:
        """True where tasks are generated."""
        return isinstance(self._stream, IndexedTasks)

    def task(self, split: Split, index: int) -> Task:
        if not isinstance(self._stream, IndexedTasks):
            return super().task(split, index)
        one_of("split", split, ("train", "eval"))
        check_index(split, index, self.num_tasks)
        return self._stream.at(split, index)

    def score(self, task: Task, rollout: Rollout) -> Score:
        metrics = math_python.scores(rollout.answer, task.gold)
        return Score(metrics[self.scoring], metrics)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"\\boxed{{{task.gold}}}"
