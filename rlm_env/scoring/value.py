"""The score of a rollout, in the process that asks for it: the rule for overflows, then the environment's `score`."""

from __future__ import annotations

import inspect
from dataclasses import replace

from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, StopReason
from rlm_env.score import Score
from rlm_env.task import Task


def score(environment: Environment, task: Task, rollout: Rollout) -> Score:
    """The score of a rollout whose judge, if there is one, has been asked. A plain number becomes a `Score`.

    An overflow without an answer is 0, whatever the scorer says of an empty answer: the model never answered. One
    with an answer is scored like any other rollout.
    Raises ValueError where the value is outside [0, 1] or a metric is not a finite number.
    """
    if is_unanswered_overflow(rollout):
        return Score(0.0, explanation="the prompt did not fit the window and there was no answer")
    value = environment.score(task, rollout)
    if inspect.isawaitable(value):
        raise TypeError("score() must not be async; put what has to be awaited into judge()")
    # A Score is made again, which checks what was put into it after it was made.
    return replace(value) if isinstance(value, Score) else Score(float(value))


def is_unanswered_overflow(rollout: Rollout) -> bool:
    """True where the root prompt outgrew the window before there was an answer."""
    return rollout.stop_reason is StopReason.CONTEXT_OVERFLOW and not rollout.answer.strip()
