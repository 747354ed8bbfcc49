"""Tasks of Oolong-synth and Oolong-Pairs: windows of the asked lengths with questions about them, endless and seeded.

A task depends on seed, split, index and the options, on nothing else, so splits are disjoint streams and any task can
be made again alone. A family whose question would be ambiguous in a window yields to the next one; if none of the
chosen families can ask anything, the window is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from oolong_rlm.measure import Measure
from oolong_rlm.questions import Family, Question
from oolong_rlm.vocabulary import Vocabulary
from oolong_rlm.window import Size, Window, make_window
from rlm_env.authoring.draw import Draw
from rlm_env.task import Split, Task

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
TRIES_PER_FAMILY = 6
WINDOWS_PER_TASK = 60


@dataclass(frozen=True)
class GeneratedSet:
    """The checked options of a stream of generated tasks."""

    seed: int
    sizes: Sequence[Size]
    """Sizes of contexts; context i has `sizes[i % len(sizes)]`."""
    families: dict[str, tuple[str, Family]]
    """Name -> (group, family); see `questions.FAMILIES` and `pairs.PAIR_FAMILIES`."""
    vocabulary: Vocabulary
    leak: float
    with_labels: bool
    measure: Measure
    subset: Literal["synth", "pairs"] = "synth"
    """The scorer of the answers."""
    questions_per_context: int = 1
    """Consecutive tasks about the same context (25 in the paper); prefix caches profit from more than one."""


class SynthTasks:
    """Makes tasks by their index. Where several are about one window, they are made together."""

    def __init__(self, options: GeneratedSet) -> None:
        self._options = options
        self._last: tuple[Split, int, list[Task]] | None = None

    def __reduce__(self) -> tuple[type[SynthTasks], tuple[GeneratedSet]]:
        return SynthTasks, (self._options,)

    def __call__(self, split: Split, index: int) -> Task:
        """Task number `index`. Raises ValueError where a length is too short for the options."""
        place, question = divmod(index, self._options.questions_per_context)
        if self._options.questions_per_context == 1:
            return window_tasks(self._options, split, place)[0]
        last = self._last
        if last is None or last[:2] != (split, place):
            last = self._last = None  # its window is freed before the next one is drawn
            last = self._last = (split, place, window_tasks(self._options, split, place))
        return last[2][question]


def window_tasks(options: GeneratedSet, split: Split, place: int) -> list[Task]:
    """The tasks about the window number `place`."""
    size = options.sizes[place % len(options.sizes)]
    for attempt in range(WINDOWS_PER_TASK):
        tasks = try_window(options, split, place, size, attempt)
        if tasks:
            return tasks
    raise ValueError(
        f"none of the families {', '.join(options.families)} has a question with one right answer about "
        f"{size.amount} {size.unit} (tried {WINDOWS_PER_TASK} windows); add families or use longer contexts"
    )


def try_window(options: GeneratedSet, split: Split, place: int, size: Size, attempt: int) -> list[Task]:
    """The tasks about one drawn window, or none if one would be ambiguous. A separate function, so that the window is
    freed before the next one is drawn."""
    draw = Draw("oolong-synth", FORMAT, options.seed, split, place, attempt)
    window = make_window(
        options.vocabulary,
        size,
        options.leak,
        options.with_labels,
        options.measure,
        draw,
        crowd=options.subset == "pairs",
    )
    asked = [
        ask(window, options, Draw("question", FORMAT, options.seed, split, place, attempt, i))
        for i in range(options.questions_per_context)
    ]
    if not all(asked):
        return []
    return [
        make_task(options, split, place * options.questions_per_context + i, size, window, *found)
        for i, found in enumerate(asked)
    ]


def ask(window: Window, options: GeneratedSet, draw: Draw) -> tuple[str, Question] | None:
    """The name of a family and its question, or None if all questions would be ambiguous."""
    easy = options.vocabulary.name == "easy"
    for name in draw.shuffled(list(options.families)):
        for _ in range(TRIES_PER_FAMILY):
            question = options.families[name][1](window, draw, easy)
            if question is not None:
                return name, question
    return None


def make_task(
    options: GeneratedSet, split: Split, index: int, size: Size, window: Window, name: str, question: Question
) -> Task:
    info = {
        "subset": options.subset,
        "answer_type": question.answer_type,
        "task_group": options.families[name][0],
        "family": name,
        "task": question.task,
        "length_tokens": options.measure.tokens(window.units),
        f"target_{size.unit}": size.amount,
        "lines": len(window.label_of),
        "labels": window.labels,
        "vocabulary": options.vocabulary.name,
        "leak": options.leak,
        "with_labels": options.with_labels,
        "context_window_id": f"{split}-{options.seed}-{index // options.questions_per_context}",
    }
    return Task(question.text, window.text, question.gold, f"{split}-{options.seed}-{index}", info)
