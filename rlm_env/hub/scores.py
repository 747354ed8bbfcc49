"""Rules about scores: the perfect answer gets 1, the empty one 0, another task's less than 1; the same answer the same.

No judge is asked unless `ask_judge` is set. Everything is scored in this process.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

from rlm_env.environment import Environment
from rlm_env.hub.findings import Finding
from rlm_env.hub.guarded import environment_code, raised
from rlm_env.rollout import Rollout, Score
from rlm_env.scoring import leave_verdict, score
from rlm_env.task import Task

Answers = dict[str, str]
"""Id of a task -> its perfect answer."""
JUDGE_SECONDS = 600.0
"""What the judge of one answer may take, with all its retries."""
EMPTY = ("", " \n")
"""Answers that say nothing."""


async def scored(
    environment: Environment, task: Task, answer: str, *, rule: str = "score", ask_judge: bool = False
) -> Score:
    """The score of an answer as text, asked for by a rule. Raises what judge and scorer raise, ValueError if scoring
    changes the task, and NoEnd."""
    if not isinstance(answer, str):
        raise TypeError(f"an answer is a str, not a {type(answer).__name__}")
    rollout = Rollout.from_answer(task, answer)
    if ask_judge:
        await asyncio.wait_for(leave_verdict(environment, task, rollout), JUDGE_SECONDS)
    before = repr((task.gold, task.info))
    with environment_code(rule, task.id):
        value = score(environment, task, rollout)
    if repr((task.gold, task.info)) != before:
        raise ValueError("score() changes task.gold or task.info, which every other rollout of the task is scored by")
    return value


async def perfect_answers(
    environment: Environment, tasks: Iterable[Task], *, ask_judge: bool = False
) -> tuple[Answers, list[Finding]]:
    """The perfect answer of each task, and a finding for each that does not score 1."""
    rule = "perfect-answer"
    answers: Answers = {}
    found: list[Finding] = []
    for task in tasks:
        try:
            with environment_code(rule, task.id):
                answer = environment.perfect_answer(task)
            value = await scored(environment, task, answer, rule=rule, ask_judge=ask_judge)
        except Exception as error:
            found.append(_raised(rule, task, error))
            continue
        answers[task.id] = answer
        if value.value != 1.0:
            found.append(
                Finding(
                    "perfect-answer",
                    task.id,
                    f"the perfect answer {_short(answers[task.id])} scores {value.value:g}, not 1",
                    "let perfect_answer() return an answer that score() accepts, or mend score()",
                )
            )
    return answers, found


async def empty_answers(environment: Environment, tasks: Iterable[Task], *, ask_judge: bool = False) -> list[Finding]:
    """A finding for each task whose empty answer, or one of blanks alone, does not score 0."""
    rule = "empty-answer"
    found: list[Finding] = []
    for task in tasks:
        for answer in EMPTY:
            try:
                value = (await scored(environment, task, answer, rule=rule, ask_judge=ask_judge)).value
            except Exception as error:
                found.append(_raised(rule, task, error))
                break
            if value != 0.0:
                kind = "the empty answer" if not answer else f"an answer of blanks, {answer!r},"
                remedy = "let score() return 0 where rollout.answer.strip() is empty"
                found.append(Finding(rule, task.id, f"{kind} scores {value:g}, not 0", remedy))
                break
    return found


async def other_answers(
    environment: Environment, tasks: list[Task], answers: Answers, *, ask_judge: bool = False
) -> list[Finding]:
    """A finding for each task that takes the answer to the next task whose gold differs for a right one."""
    found: list[Finding] = []
    for index, task in enumerate(tasks):
        later = (*tasks[index + 1 :], *tasks[:index])
        other = next((one for one in later if repr(one.gold) != repr(task.gold) and one.id in answers), None)
        if other is None:
            continue
        try:
            value = (await scored(environment, task, answers[other.id], rule="other-answer", ask_judge=ask_judge)).value
        except Exception as error:
            found.append(_raised("other-answer", task, error))
            continue
        if value >= 1.0:
            found.append(
                Finding(
                    "other-answer",
                    task.id,
                    f"the answer to {other.id}, {_short(answers[other.id])}, scores {value:g} here too, though the "
                    "right answers differ",
                    "compare with task.gold in score()",
                )
            )
    return found


async def unsteady_scores(environment: Environment, tasks: Iterable[Task], answers: Answers) -> list[Finding]:
    """A finding for each task whose answer is not scored the same twice, or whose metrics are not finite numbers."""
    found: list[Finding] = []
    for task in tasks:
        if task.id not in answers:
            continue
        try:
            first, second = [await scored(environment, task, answers[task.id]) for _ in range(2)]
        except Exception as error:
            found.append(_raised("score", task, error))
            continue
        if (first.value, first.metrics) != (second.value, second.metrics):
            found.append(
                Finding(
                    "score",
                    task.id,
                    f"the same answer scores {first.value:g} and then {second.value:g}, or has other metrics",
                    "keep score() free of chance, clocks and memory of earlier calls",
                )
            )
        wrong = [name for name, value in first.metrics.items() if not math.isfinite(float(value))]
        if wrong:
            found.append(
                Finding("score", task.id, f"the metric {wrong[0]} is no finite number", "leave it out where undefined")
            )
    return found


def _raised(rule: str, task: Task, error: Exception) -> Finding:
    remedy = "score() takes any text and returns a number or a Score in [0, 1]; perfect_answer() takes any task"
    return Finding(rule, task.id, raised(error), remedy)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
