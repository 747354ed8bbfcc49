"""The environment `codeqa-rlm`: options, tasks, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Literal

from codeqa_rlm import generate, installed
from codeqa_rlm.baselines import BASELINES
from codeqa_rlm.choices import CHOICES
from codeqa_rlm.hub import HubOptions, hub_tasks
from rlm_env.authoring.options import at_least, counts, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import codeqa

DEFAULT_LENGTH = {"standard": 16_384, "tiny": 240}
OPTIONS_OF = {
    "generated": {"lengths", "files_per_context", "families", "profile"},
    "installed": {"packages", "families"},
    "hub": {"revision", "files"},
}
"""Dataset -> the options that only some datasets have."""


class CodeQA(Environment):
    """Multiple choice about a code repository, which is the context: a dict from path to text.

    Options, all by keyword:

    - `dataset`: `generated` (synthetic repositories), `installed` (packages of this machine with other names in them),
      or `hub` (LongBench-v2 "Code Repository Understanding" through `datasets`; its contexts are a str).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless, all where published).
    - `scoring`: `official` (LongBench-v2's extraction) or `strict`, see `rewards/rlm_rewards/codeqa.py`.
    - `choices`: what the options are called, `ABCD` or `0123` (the RLM paper's form).
    - generated and installed: `families` of questions, cycled over (None: all).
    - generated: `lengths` in tokens (characters / 4), cycled over (None: 16,384, tiny 240); `files_per_context`, about
      how many modules share them (None: as is usual for the length); `profile`: `standard`, or `tiny` (short names, few
      families) for very small models.
    - installed: `packages`, names of importable packages of Python source, cycled over (None: some of the standard
      library, others in `train` than in `eval`).
    - hub: `revision` (None: the tested commit); `files`, a local copy.
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
        families: str | Sequence[str] | None = None,
        lengths: int | Sequence[int] | None = None,
        files_per_context: int | None = None,
        profile: Literal["standard", "tiny"] | None = None,
        packages: str | Sequence[str] | None = None,
        revision: str | None = None,
        files: str | Path | None = None,
    ) -> None:
        given = {name for name, value in locals().items() if value is not None}
        one_of("dataset", dataset, OPTIONS_OF)
        idle = given & set().union(*OPTIONS_OF.values()) - OPTIONS_OF[dataset]
        if idle:
            raise ValueError(f"dataset {dataset!r} has no option {', '.join(sorted(idle))}")
        self.dataset, self.num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.scoring = one_of("scoring", scoring, codeqa.MODES)
        self.choices = one_of("choices", choices, CHOICES)
        self._make: Callable[[Split], Iterator[Task]]
        if dataset == "generated":
            profile = profile or "standard"
            one_of("profile", profile, generate.FAMILIES_OF)
            generated = generate.Options(
                seed=seed,
                profile=profile,
                lengths=counts("lengths", DEFAULT_LENGTH[profile] if lengths is None else lengths),
                files=at_least("files_per_context", files_per_context, 1),
                families=chosen(families, generate.FAMILIES_OF[profile]),
                choices=choices,
            )
            self._make = lambda split: generate.generated_tasks(generated, split)
        elif dataset == "installed":
            options = installed.Options(
                seed=seed,
                packages=None if packages is None else installed.check_packages(packages),
                families=chosen(families, installed.FAMILIES_HERE),
                choices=choices,
            )
            self._make = lambda split: installed.installed_tasks(options, split)
        else:
            hub = HubOptions(revision, files, choices)
            self._make = lambda split: hub_tasks(hub, split)

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: islice(self._make(split), self.num_tasks), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        both = {mode: codeqa.score(rollout.answer, task.gold, mode, self.choices) for mode in codeqa.MODES}
        said = codeqa.extract_choice(rollout.answer, self.scoring, self.choices)
        return Score(both[self.scoring], both | {"answered": float(said is not None)}, answered=said is not None)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"The correct answer is ({task.gold})"

    def standard_prompt(self, task: Task) -> str:
        """The files one after the other under their paths, then the question."""
        if isinstance(task.context, dict):
            text = "\n\n".join(f"### {path}\n{content}" for path, content in task.context.items())
        else:
            text = task.context
        return f"{text}\n\n{task.question}"


def chosen(families: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The families to ask about. Raises ValueError for one that does not exist, and for none."""
    names = [families] if isinstance(families, str) else list(known if families is None else families)
    if not names:
        raise ValueError("families must name at least one family of questions")
    return [one_of("families", name, known) for name in names]
