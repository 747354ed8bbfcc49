"""The environments `oolong-rlm` and `oolong-pairs-rlm`: tasks and scores. Their options are in `datasets.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Literal

from oolong_rlm.baselines import BASELINES
from oolong_rlm.datasets import DATASETS
from rlm_env.authoring.indexed import StreamedEnvironment
from rlm_env.authoring.options import at_least, dataset_options, one_of
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Task
from rlm_rewards import oolong

BEFORE = {
    "more common than": "more common",
    "less common than": "less common",
    "same frequency as": "the same frequency",
}
"""Gold -> the wording of an answer to a question that compares before and after a date."""
FORM = re.compile(r"in the form '([^']+)'")


class Oolong(StreamedEnvironment):
    """Oolong: count and compare what only reading tells, over a context of any length.

    Options, all by keyword:

    - `dataset`: `synth` (generated), `pairs` (generated; answers are lists of pairs of users), `real` (events planted
      in real transcripts), `hub-synth`, `hub-pairs` and `hub-real` (the published sets through `datasets`).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless where generated, all where published).
    - `scoring`: `official` or `strict`, see `rewards/rlm_rewards/oolong.py`.
    - the options of the data set, which are the fields of its class in `oolong_rlm/datasets.py`: `SynthOptions`,
      `PairsOptions`, `RealOptions`, `HubSynthOptions`, `HubPairsOptions`, `HubRealOptions`. An option of another data
      set is refused.
    """

    name = "oolong-rlm"
    tips = (resources.files("oolong_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        dataset: Literal["synth", "pairs", "real", "hub-synth", "hub-pairs", "hub-real"] = "synth",
        seed: int = 0,
        num_tasks: int | None = None,
        scoring: Literal["official", "strict"] = "official",
        **options: Any,
    ) -> None:
        source = dataset_options(dataset, DATASETS, options, ("dataset", "seed", "num_tasks", "scoring"))
        self.dataset, num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, oolong.MODES)
        super().__init__(source.stream(seed), num_tasks)

    def score(self, task: Task, rollout: Rollout) -> Score:
        if task.info["subset"] == "pairs":
            found = oolong.pairs_f1(rollout.answer, task.gold)
            strict = oolong.score(rollout.answer, task.gold, "pairs", mode="strict")
            metrics = {"exact": float(found["f1"] == 1.0), "strict": strict, **found}
            return Score(strict if self.scoring == "strict" else found["f1"], metrics)
        subset, answer_type = task.info["subset"], task.info.get("answer_type")
        value, why = oolong.judge(rollout.answer, task.gold, subset, answer_type, self.scoring)
        strict = oolong.score(rollout.answer, task.gold, subset, answer_type, "strict")
        return Score(value, {"exact": float(value == 1.0), "strict": strict}, why)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        """The gold in the form that the question asks for."""
        if task.info["subset"] == "pairs":
            return task.gold
        if task.info["subset"] == "real":
            return f"\\boxed{{{task.gold}}}"
        value = oolong.show_gold(task.gold)
        form = FORM.search(task.question)
        head, _, tail = (form[1] if form else "Answer: [X]").partition(": ")
        if "[X] before" in tail:
            value = BEFORE.get(value, value)
        slot = next((slot for slot in ("[month] [year]", "[X]", "answer", "number") if slot in tail), tail)
        return f"{head}: {tail.replace(slot, value, 1)}"


class OolongPairs(Oolong):
    """`Oolong` with `dataset="pairs"` unless another data set is named."""

    name = "oolong-pairs-rlm"

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dataset": "pairs", **options})
