"""The environment `needle-rlm`: options, tasks and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import count, islice
from typing import Literal

from needle_rlm.baselines import BASELINES
from needle_rlm.haystack import make_haystack
from needle_rlm.prose import VOCABULARIES
from rlm_env.authoring.draw import Draw
from rlm_env.authoring.indexed import check_index
from rlm_env.authoring.options import at_least, counts, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import needle

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
DEFAULT_LENGTH = {"standard": 100_000, "tiny": 600}
QUESTION = {
    "standard": (
        "Somewhere the context states outright what the special magic number for {name} is. Sentences about other "
        "names, other kinds of numbers, or about what that number was, is not, or is wrongly said to be, do not "
        "count. What is the special magic number for {name}? Give your final answer in the form 'Answer: number'."
    ),
    "tiny": "What is the special magic number for {name}? Answer in the form 'Answer: number'.",
}


class Needle(Environment):
    """S-NIAH: one number in a long text, among near-equal distractors.

    Options, all by keyword:

    - `seed`; `num_tasks`: how many tasks a split has (None: endless).
    - `lengths` in characters, cycled over (None: 100,000, tiny 600). Made for 8 thousand to 10 million.
    - `depths`: positions of the needle, shares in [0, 1], cycled over once per round of lengths (None: anywhere).
    - `distractors`: how many near-equal sentences (None: one for 2,500 characters, 4 to 1,000).
    - `profile`: `standard`, or `tiny` (short sentences of few words, numbers of three digits) for very small models.
    - `scoring`: `strict` (the number and nothing else) or `official` (RULER's: the number anywhere in the answer, so
      that copying the whole context is right), see `rewards/rlm_rewards/needle.py`.
    """

    name = "needle-rlm"
    makes_any_task = True
    tips = (resources.files("needle_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        seed: int = 0,
        num_tasks: int | None = None,
        lengths: int | Sequence[int] | None = None,
        depths: float | Sequence[float] | None = None,
        distractors: int | None = None,
        profile: Literal["standard", "tiny"] = "standard",
        scoring: Literal["official", "strict"] = "strict",
    ) -> None:
        self.seed, self.num_tasks = seed, at_least("num_tasks", num_tasks, 1)
        self.profile = one_of("profile", profile, VOCABULARIES)
        self.scoring = one_of("scoring", scoring, needle.MODES)
        self.lengths = counts("lengths", DEFAULT_LENGTH[profile] if lengths is None else lengths)
        self.depths = None if depths is None else [depths] if isinstance(depths, int | float) else list(depths)
        if self.depths is not None and not (self.depths and all(0 <= depth <= 1 for depth in self.depths)):
            raise ValueError(f"depths must be one or more shares in [0, 1] or None, got {depths!r}")
        self.distractors = at_least("distractors", distractors, 0)

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: (self.task(split, index) for index in islice(count(), self.num_tasks)), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        both = {mode: needle.score(rollout.answer, task.gold, mode) for mode in needle.MODES}
        return Score(both[self.scoring], both, answered=any(map(str.isdigit, rollout.answer)))

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"Answer: {task.gold}"

    def task(self, split: Split, index: int) -> Task:
        """Task number `index`; depends on seed, split, index and the options, on nothing else."""
        one_of("split", split, ("train", "eval"))
        check_index(split, index, self.num_tasks)
        draw = Draw("needle", FORMAT, self.seed, split, index)
        length = self.lengths[index % len(self.lengths)]
        depth = draw.random()
        if self.depths is not None:
            depth = self.depths[index // len(self.lengths) % len(self.depths)]
        distractors = self.distractors
        if distractors is None:
            distractors = max(4, min(1000, length // 2500))
        hay = make_haystack(VOCABULARIES[self.profile], length, distractors, depth, draw)
        info = {
            "family": "s-niah",
            "length_characters": len(hay.text),
            "target_characters": length,
            "length_tokens": len(hay.text) // 4,
            "depth": round(hay.depth, 4),
            "distractors": hay.distractors,
            "profile": self.profile,
        }
        question = QUESTION[self.profile].format(name=hay.name)
        return Task(question, hay.text, hay.number, f"{split}-{self.seed}-{index}", info)
