"""The environment `codeqa-rlm`: tasks and scores. Its options are in `datasets.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from itertools import islice
from typing import Any, Literal

from codeqa_rlm.baselines import BASELINES
from codeqa_rlm.choices import CHOICES
from codeqa_rlm.datasets import DATASETS
from rlm_env.authoring.indexed import IndexedTasks, check_index
from rlm_env.authoring.options import at_least, dataset_options, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import codeqa


class CodeQA(Environment):
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
        self.dataset, self.num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, codeqa.MODES)
        self.choices = one_of("choices", choices, CHOICES)
        self._stream = source.stream(seed, choices)

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
