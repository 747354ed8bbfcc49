"""The environment `verbatim-copy-rlm`: options, tasks and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import count, islice
from typing import Literal

from rlm_env.authoring.draw import Draw
from rlm_env.authoring.indexed import check_index
from rlm_env.authoring.options import at_least, chosen, counts, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import verbatim_copy
from verbatim_copy_rlm.baselines import BASELINES
from verbatim_copy_rlm.texts import KINDS, TINY_KINDS, fragmented, make_text

FORMAT = 2
"""Part of every seed: raised when the bytes of generated tasks change."""
PROFILES = {"standard": KINDS, "tiny": TINY_KINDS}
DEFAULT_LENGTHS = {"standard": (4096, 8192, 16_384), "tiny": (24, 48)}
METRICS = ("exact_match", "char_accuracy", "levenshtein_similarity")
TAGS = ("<answer>", "</answer>", "<text>", "</text>")
"""No text contains one of them."""
QUESTION = {
    "standard": (
        "Copy the text below exactly, character for character: every blank, tab and line end (also CRLF), every "
        "accent, quote and backslash. Correct, complete and normalise nothing; the text may stop in the middle. It "
        "begins right behind the opening text tag and ends right before the closing one. Give the copy between "
        "<answer> and </answer> in the same way; what stands outside of them does not count.\n\n<text>{text}</text>"
    ),
    "tiny": "Copy the text exactly. Give the copy between <answer> and </answer>.\n\n<text>{text}</text>",
}


class VerbatimCopy(Environment):
    """Copying a text character for character. The text is in the question in every scaffold, never in a variable.

    Options, all by keyword:

    - `seed`; `num_tasks`: how many tasks a split has (None: endless).
    - `kinds` of text, cycled over (None: all): words, json, csv, codes, mixed, unicode, whitespace, quotes; of the
      tiny profile words and codes.
    - `lengths` in characters, each kind in turn (None: 4096, 8192, 16384; tiny 24, 48).
    - `fragment`: mean length of the pieces in which a text is cut and shuffled (None: it stays whole).
    - `profile`: `standard`, or `tiny` (few short words, groups of three digits) for very small models.
    - `metric` that is the score: `exact_match`, `char_accuracy` or `levenshtein_similarity`.
    """

    name = "verbatim-copy-rlm"
    makes_any_task = True
    tips = (resources.files("verbatim_copy_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        seed: int = 0,
        num_tasks: int | None = None,
        kinds: str | Sequence[str] | None = None,
        lengths: int | Sequence[int] | None = None,
        fragment: int | None = None,
        profile: Literal["standard", "tiny"] = "standard",
        metric: Literal["exact_match", "char_accuracy", "levenshtein_similarity"] = "exact_match",
    ) -> None:
        self.seed, self.num_tasks = seed, at_least("num_tasks", num_tasks, 1)
        self.profile = one_of("profile", profile, PROFILES)
        self.kinds = chosen("kinds", kinds, PROFILES[profile])
        self.lengths = counts("lengths", DEFAULT_LENGTHS[profile] if lengths is None else lengths)
        self.fragment = at_least("fragment", fragment, 1)
        self.metric = one_of("metric", metric, METRICS)

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: (self.task(split, index) for index in islice(count(), self.num_tasks)), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        metrics = verbatim_copy.metrics(task.gold, copy_in(rollout.answer))
        return Score(metrics[self.metric], metrics)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        return f"<answer>{task.gold}</answer>"

    def task(self, split: Split, index: int) -> Task:
        """Task number `index`; depends on seed, split, index and the options, on nothing else."""
        one_of("split", split, ("train", "eval"))
        check_index(split, index, self.num_tasks)
        kind = self.kinds[index % len(self.kinds)]
        length = self.lengths[index // len(self.kinds) % len(self.lengths)]
        for attempt in count():
            draw = Draw("verbatim-copy", FORMAT, self.seed, split, index, attempt)
            text = make_text(PROFILES[self.profile][kind](draw), length)
            if self.fragment is not None:
                text = fragmented(text, self.fragment, draw)
            # Some pipelines strip what a model says; a text of blanks only could not be told from none.
            if text.strip() and not any(tag in text for tag in TAGS):
                break
        info = {
            "family": kind,
            "length_characters": length,
            "length_tokens": length // 4,
            "fragment": self.fragment,
            "profile": self.profile,
        }
        question = QUESTION[self.profile].format(text=text)
        return Task(question, gold=text, id=f"{split}-{self.seed}-{index}", info=info)


def copy_in(answer: str) -> str:
    """The copy in an answer, in every scaffold: the text between its tags, or all of it if it has none."""
    if "<answer>" in answer and "</answer>" in answer:
        return verbatim_copy.extract_answer(answer)
    return answer
