"""A question of multiple choice as text: the options in random order, and the form of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from codeqa_rlm.questions import Question
from rlm_env.authoring.draw import Draw

CHOICES = ("ABCD", "0123")
"""The names of the options: letters as in LongBench-v2, or digits as in the RLM paper."""
FORM = "Answer in the form 'The correct answer is ({})', with one of {} in the brackets."
TINY_FORM = "Answer: 'The correct answer is ({})'."


def ask(text: str, options: Sequence[str], choices: str, form: str = FORM) -> str:
    """The question with its options, one a line, and the form of the answer."""
    listed = "\n".join(f"({name}) {option}" for name, option in zip(choices, options, strict=True))
    return f"{text}\n\n{listed}\n\n{form.format('X', ', '.join(choices))}"


def shuffle(question: Question, draw: Draw) -> tuple[list[str], int]:
    """The four options in random order, and the place of the right one."""
    options = draw.shuffled([question.right, *question.wrong])
    return options, options.index(question.right)
