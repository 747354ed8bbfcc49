"""The environment `codeqa-rlm`: tasks and scores. Its options are in `datasets.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Literal

from codeqa_rlm.baselines import BASELINES
from codeqa_rlm.choices import CHOICES
from codeqa_rlm.datasets import DATASETS
from rlm_env.authoring.indexed import StreamedEnvironment
from rlm_env.authoring.options import at_least, dataset_options, one_of
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Task
from rlm_rewards import codeqa


class CodeQA(StreamedEnvironment):
    """Multiple choice about a code repository, which is the context: a dict from path to text.

    Options, all by keyword:

    - `dataset`: `generated` (synthetic repositories), `installed` (packages of this machine with other names in them),
      or `hub` (LongBench-v2 "Code Repository Understanding" through `datasets`; its contexts are a str).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless, all where published).
    - `scoring`: `official` (LongBench-v2's extraction) or `strict`, see `rewards/rlm_rewards/codeqa.py`.
    - `choices`: the names of the choices, `ABCD` or `0123` (the RLM paper's form).
    - the options of the data set, which are the fields of its class in `codeqa_rlm/datasets.py`: `GeneratedOptions`,
      `InstalledOptions`, `HubOptions`. An option of another data set is refused.
    """

    name = "codeqa-rlm"
    tips = (resources.files("codeqa_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        dataset: Literal["generated", "installed", "hub"] = "generated",
        seed: int = 0,
        num_tasks: int | None = None,
        scoring: Literal["official", "strict"] = "official",
        choices: Literal["ABCD", "0123"] = "ABCD",
        **options: Any,
    ) -> None:
        common = ("dataset", "seed", "num_tasks", "scoring", "choices")
        source = dataset_options(dataset, DATASETS, options, common)
        self.dataset, num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, codeqa.MODES)
        self.choices = one_of("choices", choices, CHOICES)
        super().__init__(source.stream(seed, choices), num_tasks)

    def score(self, task: Task, rollout: Rollout) -> Score:
        both = {mode: codeqa.score(rollout.answer, task.gold, mode, self.choices) for mode in codeqa.MODES}
        said = codeqa.extract_choice(rollout.answer, self.scoring, self.choices)
        return Score(both[self.scoring], both | {"answered": float(said is not None)}, answered=said is not None)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"The correct answer is ({task.gold})"

    def standard_prompt(self, task: Task) -> str:
        """All files, each under its path, then the question."""
        if isinstance(task.context, dict):
            text = "\n\n".join(f"### {path}\n{content}" for path, content in task.context.items())
        else:
            text = task.context
        return f"{text}\n\n{task.question}"
