"""Generated tasks: seeded, endless, each solved by a closed form.

Which split a problem belongs to follows from its own words, so that `train` and `eval` share none, whatever the seed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from math_python_rlm.families import STANDARD, TINY
from math_python_rlm.problem import is_hard, latex
from rlm_env.authoring.draw import Draw
from rlm_env.task import Split, Task

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
PROFILES = {"standard": STANDARD, "tiny": TINY}
EVAL_SHARE = 8
"""One in so many problems belongs to `eval`."""
TRIES = 1000
"""Draws until a hard problem of the split is found."""
INSTRUCTION = {
    "standard": "Solve the following problem. Put the exact final answer into \\boxed{}.\n\n",
    "tiny": "Put the answer into \\boxed{}. ",
}


@dataclass(frozen=True)
class GeneratedSet:
    """The checked options of a stream of generated tasks."""

    seed: int
    families: Sequence[str]
    """Task i comes from `families[i % len(families)]`."""
    profile: str


def split_of(question: str, share: int) -> Split:
    """`eval` for one question of `share`, by a checksum of its text."""
    return "train" if zlib.crc32(question.encode("utf-8", "surrogatepass")) % share else "eval"


def generated_task(options: GeneratedSet, split: Split, index: int) -> Task:
    """Task number `index`; depends on seed, split, index and the options, on nothing else."""
    family = options.families[index % len(options.families)]
    for attempt in range(TRIES):
        problem = PROFILES[options.profile][family](
            Draw("math-python", FORMAT, options.seed, split, index, family, attempt)
        )
        if split_of(problem.question, EVAL_SHARE) != split:
            continue
        value = problem.solve()
        if options.profile == "tiny" or is_hard(value):
            info = {"family": family, "profile": options.profile, "dataset": "generated"}
            question = INSTRUCTION[options.profile] + problem.question
            return Task(question, gold=latex(value), id=f"{split}-{options.seed}-{index}", info=info)
    raise ValueError(f"families: {family!r} drew no problem for {split} in {TRIES} tries; its parameters are too few")
