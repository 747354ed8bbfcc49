"""The two data sets of MathPython: a dataclass of options each, whose `stream` checks them and gives the tasks.

The tasks themselves are made in `generate.py` and `hub.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from math_python_rlm.generate import PROFILES, GeneratedSet, generated_task
from math_python_rlm.hub import PublishedSet, hub_tasks
from rlm_env.authoring.indexed import IndexedTasks
from rlm_env.authoring.options import chosen, one_of
from rlm_env.task import Split, Task

Stream = Callable[[Split], Iterator[Task]]
"""The tasks of a split, from the first one on."""


@dataclass(frozen=True, kw_only=True)
class GeneratedOptions:
    """`generated`: problems that are drawn and solved by a closed form."""

    profile: Literal["standard", "tiny"] = "standard"
    """`tiny`, for very small models, has short sums in few words."""
    families: str | Sequence[str] | None = None
    """Families of problems, cycled over; None: all."""

    def stream(self, seed: int) -> Stream:
        profile = one_of("profile", self.profile, PROFILES)
        families = chosen("families", self.families, PROFILES[profile])
        return IndexedTasks(partial(generated_task, GeneratedSet(seed, families, profile)))


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """`hub`: INTELLECT-3-RL math, which knows no seed."""

    revision: str | None = None
    """Another commit than the tested one (40 hex digits)."""
    files: str | Path | None = None
    """A local copy of the published files."""
    solve_rate: tuple[float, float] | None = None
    """(low, high): keeps the problems that a small model solved in such a share of its attempts."""

    def stream(self, seed: int) -> Stream:
        rate = self.solve_rate
        if rate is not None and not (len(rate) == 2 and 0 <= rate[0] <= rate[1] <= 1):
            raise ValueError(f"solve_rate must be (low, high) with 0 <= low <= high <= 1, got {rate!r}")
        return partial(hub_tasks, PublishedSet(self.revision, self.files, rate and (rate[0], rate[1])))


DATASETS: dict[str, type[GeneratedOptions | HubOptions]] = {"generated": GeneratedOptions, "hub": HubOptions}
