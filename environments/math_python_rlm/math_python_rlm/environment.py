"""The environment `math-python-rlm`: tasks and scores. Its options are in `datasets.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Literal

from math_python_rlm.baselines import BASELINES
from math_python_rlm.datasets import DATASETS
from rlm_env.authoring.indexed import StreamedEnvironment
from rlm_env.authoring.options import at_least, dataset_options, one_of
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Task
from rlm_rewards import math_python

UNCOMPUTED = re.compile(r"[0-9] *(?:[-+*/^]|\\(?:times|cdot|div)) *\(?[0-9]")
"""An operator between two numbers, as in the sum that the question asks for."""


class MathPython(StreamedEnvironment):
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
        self.dataset, num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, math_python.MODES)
        super().__init__(source.stream(seed), num_tasks)

    def score(self, task: Task, rollout: Rollout) -> Score:
        metrics = math_python.scores(rollout.answer, task.gold)
        if task.info.get("profile") == "tiny" and is_uncomputed(rollout.answer):
            metrics = dict.fromkeys(metrics, 0.0)
        return Score(metrics[self.scoring], metrics)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"\\boxed{{{task.gold}}}"


def is_uncomputed(answer: str) -> bool:
    """True for an answer such as `\\boxed{875 + 700}`: math-verify computes it itself, so that whoever hands the sum of
    the question back would be right. What follows the last `=` counts."""
    return UNCOMPUTED.search(math_python.extract(answer).rpartition("=")[2]) is not None
