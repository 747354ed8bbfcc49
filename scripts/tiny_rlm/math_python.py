"""Lessons of math-python-rlm: short sums, which Python computes rightly and a head does not.

Sound is the expression of the question in Python; weak are mental arithmetic, another operator, a part of the terms, an
estimate, and a sub-LLM, which is no better a calculator than the root. Problems of the split `eval` never occur in
`train`.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

from rlm_env.llm.base import LLM
from rlm_env.messages import Message
from rlm_env.task import Task
from tiny_rlm.lessons import READY, Lessons, Plan, Reply, say
from tiny_rlm.scripted import ScriptedSub, conversation

_ASKED = re.compile(r"Put the answer into \\boxed\{\}\. What is (\d+(?: [+*-] \d+)+)\?")
COMPUTE = "Compute: "
HAND_IN = ['answer["content"] = "\\\\boxed{" + str(n) + "}"', READY]
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class MathPythonLessons(Lessons):
    environment = "math-python-rlm"
    options: ClassVar[Mapping[str, Any]] = {"profile": "tiny"}
    strategies: ClassVar[Mapping[str, float]] = {
        "sound": 0.14,
        "sound_check": 0.07,
        "sound_names": 0.07,
        "sound_by_hand": 0.07,
        "sound_after_error": 0.05,
        "ask": 0.05,
        "in_head": 0.12,
        "other_operator": 0.11,
        "first_terms": 0.10,
        "rounded": 0.06,
        "no_answer": 0.06,
        "guess": 0.07,
        "prose_only": 0.03,
    }
    batching = frozenset({"ask"})

    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        question = read_sum(asked(task))
        replies = STRATEGIES[strategy](question, draw)
        replies[0] = f"Task: {question}.\n{replies[0]}"
        return Plan(strategy, replies, fallback=say("That failed. I guess.", *guessed(draw)))

    def sub(self, tasks: Sequence[Task]) -> LLM:
        return ScriptedSub(compute)

    def readings(self, tasks: Sequence[Task], draw: random.Random) -> list[list[Message]]:
        """One call per task, to compute its sum."""
        return [conversation(COMPUTE + asked(task), str(read_sum(asked(task)).value)) for task in tasks]


@dataclass(frozen=True, slots=True)
class Sum:
    """Numbers, and the operator between each two of them."""

    numbers: tuple[int, ...]
    operator: str

    def __str__(self) -> str:
        return f" {self.operator} ".join(map(str, self.numbers))

    @property
    def value(self) -> int:
        return reduce(OPERATORS[self.operator], self.numbers)

    @property
    def is_long(self) -> bool:
        """More than two numbers, and then always to be added."""
        return len(self.numbers) > 2


def asked(task: Task) -> str:
    """The expression in the question. Raises ValueError for a question of another profile."""
    if not (found := _ASKED.fullmatch(task.question)):
        raise ValueError(f"no teacher understands this question: {task.question}")
    return found[1]


def read_sum(expression: str) -> Sum:
    """Raises ValueError for an expression with several kinds of operators."""
    _, *operators = parts = expression.split(" ")
    [kind] = set(operators[::2])
    return Sum(tuple(map(int, parts[::2])), kind)


def compute(prompt: str) -> str | None:
    return str(read_sum(prompt.removeprefix(COMPUTE)).value) if prompt.startswith(COMPUTE) else None


# --- sound --------------------------------------------------------------------------------------------------------


def sound(question: Sum, draw: random.Random) -> list[Reply]:
    return [say("I let Python compute.", f"n = {question}", *HAND_IN)]


def sound_check(question: Sum, draw: random.Random) -> list[Reply]:
    """Computes back, or sums in another way."""
    first, *_, last = question.numbers
    back = {"+": f"n - {last} == {first}", "-": f"n + {last} == {first}", "*": f"n // {last} == {first}"}
    check = f"n == sum({list(question.numbers)})" if question.is_long else back[question.operator]
    return [
        say("I let Python compute and check.", f"n = {question}", f"print(n, {check})"),
        say("The check holds.", *HAND_IN),
    ]


def sound_names(question: Sum, draw: random.Random) -> list[Reply]:
    """The numbers as variables, or as a list where there are many."""
    if question.is_long:
        return [say("I make a list.", f"n = sum({list(question.numbers)})", *HAND_IN)]
    a, b = question.numbers
    return [say("I name the numbers.", f"a, b = {a}, {b}", f"n = a {question.operator} b", *HAND_IN)]


def sound_by_hand(question: Sum, draw: random.Random) -> list[Reply]:
    """Prints the number and copies it from the observation."""

    def copy(observation: str) -> str:
        return say("I give that number.", f'answer["content"] = "\\\\boxed{{{observation.split()[-1]}}}"', READY)

    return [say("I let Python compute and print.", f"print({question})"), copy]


def sound_after_error(question: Sum, draw: random.Random) -> list[Reply]:
    slip = draw.choice(
        [
            [f"n = {question}", HAND_IN[0].replace("str(n)", "n")],
            [f'n = 0 + "{question}"', "print(n)"],
            [f"n = {question} =", "print(n)"],
        ]
    )
    again = say("That failed. I do it again.", f"n = {question}", *HAND_IN)
    return [say("I try to let Python compute.", *slip), again]


# --- weak ---------------------------------------------------------------------------------------------------------


def ask(question: Sum, draw: random.Random) -> list[Reply]:
    """A sub-LLM computes. The scripted one is right; tiny-rlm is not."""
    return [say("I ask for the number.", f'n = llm_batch(["{COMPUTE}{question}"])[0]', *HAND_IN)]


def in_head(question: Sum, draw: random.Random) -> list[Reply]:
    return [say("I compute in my head.", f"n = {without_carrying(question)}", *HAND_IN)]


def without_carrying(question: Sum) -> int:
    """The result digit by digit, the larger number first, without carrying or borrowing; of many numbers, the first and
    the last only."""
    first, last = sorted((question.numbers[0], question.numbers[-1]), reverse=True)
    if question.operator == "*":
        return int(f"{first // 10 * (last // 10)}{first % 10 * (last % 10)}")
    tens, ones = divmod(first, 10)
    other_tens, other_ones = divmod(last, 10)
    if question.operator == "+":
        return (tens + other_tens) * 10 + (ones + other_ones) % 10
    return (tens - other_tens) * 10 + abs(ones - other_ones)


def other_operator(question: Sum, draw: random.Random) -> list[Reply]:
    kind = draw.choice([name for name in OPERATORS if name != question.operator])
    return [say("I take the numbers.", f"n = {Sum(question.numbers, kind)}", *HAND_IN)]


def first_terms(question: Sum, draw: random.Random) -> list[Reply]:
    """The first half of the numbers."""
    half = Sum(question.numbers[: len(question.numbers) // 2], question.operator)
    return [say("The first numbers will do.", f"n = {half}", *HAND_IN)]


def rounded(question: Sum, draw: random.Random) -> list[Reply]:
    digits = 1 - len(str(max(question.numbers)))
    return [say("I estimate.", f"n = round({question}, {digits})", *HAND_IN)]


def no_answer(question: Sum, draw: random.Random) -> list[Reply]:
    return [say("I print the number.", f"n = {question}", "print(n)", READY)]


def guess(question: Sum, draw: random.Random) -> list[Reply]:
    return [say("I guess.", *guessed(draw))]


def prose_only(question: Sum, draw: random.Random) -> list[Reply]:
    """A reply without code; nothing runs, and the next one guesses."""
    return ["I think about the numbers.", say("I guess.", *guessed(draw))]


def guessed(draw: random.Random) -> list[str]:
    return [f"n = {draw.randint(1, 1999)}", *HAND_IN]


STRATEGIES: dict[str, Callable[[Sum, random.Random], list[Reply]]] = {
    teacher.__name__: teacher
    for teacher in (
        *(sound, sound_check, sound_names, sound_by_hand, sound_after_error),
        *(ask, in_head, other_operator, first_terms, rounded, no_answer, guess, prose_only),
    )
}
