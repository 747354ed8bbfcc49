"""The three data sets of CodeQA: a dataclass of options each, whose `stream` checks them and gives the tasks.

The tasks themselves are made in `generate.py`, `installed.py` and `hub.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from codeqa_rlm.generate import FAMILIES_OF, GeneratedSet, generated_task
from codeqa_rlm.hub import PublishedSet, hub_tasks
from codeqa_rlm.installed import FAMILIES_HERE, InstalledSet, check_packages, installed_task
from rlm_env.authoring.indexed import IndexedTasks
from rlm_env.authoring.options import at_least, chosen, counts, one_of
from rlm_env.task import Split, Task

DEFAULT_LENGTH = {"standard": 16_384, "tiny": 240}

Stream = Callable[[Split], Iterator[Task]]
"""The tasks of a split, from the first one on."""


@dataclass(frozen=True, kw_only=True)
class GeneratedOptions:
    """`generated`: synthetic repositories."""

    profile: Literal["standard", "tiny"] = "standard"
    """`tiny`, for very small models, has short names and few families."""
    lengths: int | Sequence[int] | None = None
    """Tokens of a context (characters / 4), cycled over; None: 16,384, tiny 240."""
    files_per_context: int | None = None
    """About how many modules a context has; None: as many as are usual for its length."""
    families: str | Sequence[str] | None = None
    """Families of questions, cycled over; None: all."""

    def stream(self, seed: int, choices: str) -> Stream:
        profile = one_of("profile", self.profile, FAMILIES_OF)
        generated = GeneratedSet(
            seed=seed,
            profile=profile,
            lengths=counts("lengths", DEFAULT_LENGTH[profile] if self.lengths is None else self.lengths),
            files=at_least("files_per_context", self.files_per_context, 1),
            families=chosen("families", self.families, FAMILIES_OF[profile]),
            choices=choices,
        )
        return IndexedTasks(partial(generated_task, generated))


@dataclass(frozen=True, kw_only=True)
class InstalledOptions:
    """`installed`: packages of this machine, with other names in them."""

    packages: str | Sequence[str] | None = None
    """Names of importable packages of Python source, cycled over; None: some of the standard library, others in `train`
    than in `eval`."""
    families: str | Sequence[str] | None = None
    """Families of questions, cycled over; None: all."""

    def stream(self, seed: int, choices: str) -> Stream:
        packages = None if self.packages is None else check_packages(self.packages)
        families = chosen("families", self.families, FAMILIES_HERE)
        return IndexedTasks(partial(installed_task, InstalledSet(seed, packages, families, choices)))


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """`hub`: LongBench-v2 "Code Repository Understanding", which knows no seed."""

    revision: str | None = None
    """Another commit than the tested one (40 hex digits)."""
    files: str | Path | None = None
    """A local copy: `data.json`, or the folder that has it."""

    def stream(self, seed: int, choices: str) -> Stream:
        return partial(hub_tasks, PublishedSet(self.revision, self.files, choices))


DATASETS: dict[str, type[GeneratedOptions | InstalledOptions | HubOptions]] = {
    "generated": GeneratedOptions,
    "installed": InstalledOptions,
    "hub": HubOptions,
}
