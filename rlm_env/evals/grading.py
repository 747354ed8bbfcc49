"""Scores the rollouts of an eval. What a judge or a scorer raises costs the score and nothing else: the answer is kept.

A rollout that ended well and has no score is unscored: `--resume` and `rlm-env score` score it without an engine
(`rescoring.py`). How a score is made is in `rlm_env/scoring/`.
"""

from __future__ import annotations

from rlm_env.environment import Environment, environment_name
from rlm_env.llm.base import EngineRefused, EngineUnavailable, LLMError
from rlm_env.rollout import Rollout, StopReason
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.scoring import score_rollout
from rlm_env.scoring.errors import TRACEBACK, describe_exception, traceback_text
from rlm_env.task import Task

JUDGED = "judged"
"""Key of `Rollout.info`: the keys of `info` that the judge has added."""
INTERRUPTED = "scorer: it was interrupted"
WRONG_ANSWER = "I do not know."
"""What a judge is asked about before a run begins."""


def is_unscored(rollout: Rollout) -> bool:
    """True if there is something to score and no score: the scorer or the judge failed, or was interrupted."""
    return rollout.score is None and is_scorable(rollout)


def is_scorable(rollout: Rollout) -> bool:
    """False if the engine or the REPL failed: such a rollout has to be made again."""
    return rollout.stop_reason not in (StopReason.ERROR, StopReason.CANCELLED)


def has_judge(environment: Environment) -> bool:
    """True if the environment may ask a judge."""
    return type(environment).judge is not Environment.judge


async def grade(environment: Environment, task: Task, rollout: Rollout, *, ask_judge: bool = True) -> Exception | None:
    """Scores a rollout in place, with the verdict that is stored in it if `ask_judge` is off.

    Returns what the judge or the scorer raised; the rollout then holds it as its error, and no score.
    """
    before = set(rollout.info) - {TRACEBACK, JUDGED}
    rollout.score, rollout.error = None, None
    rollout.info.pop(TRACEBACK, None)
    error: Exception | None = None
    try:
        rollout.score = await score_rollout(environment, task, rollout, ask_judge=ask_judge)
    except Exception as raised:
        error = raised
        rollout.error = f"{'judge' if isinstance(raised, LLMError) else 'scorer'}: {describe_exception(raised)}"
        rollout.info[TRACEBACK] = traceback_text(raised)
    except BaseException:
        rollout.error = INTERRUPTED
        raise
    if ask_judge and (added := sorted(set(rollout.info) - before - {TRACEBACK, JUDGED})):
        rollout.info[JUDGED] = added
    return error


def judge_stop(error: EngineUnavailable) -> RunStopped:
    """The end of a run whose judge cannot be asked any more. The answers are stored."""
    said = "refuses" if isinstance(error, EngineRefused) else "does not answer any more"
    return RunStopped("judge unavailable", f"the judge {said}: {error}", 3)


def drop_verdict(rollout: Rollout) -> None:
    """Takes out what the judge left in a rollout, so that it is asked again."""
    for key in rollout.info.pop(JUDGED, ()):
        rollout.info.pop(key, None)


async def try_scorer(environment: Environment, task: Task) -> str | None:
    """Scores the right answer to a task, and asks the judge, where there is one, about a wrong answer.

    Returns a warning if the right answer does not get 1.0. Raises ConfigError if the scorer fails, RunStopped if the
    judge cannot be asked. An environment that knows no right answer is not tried.
    """
    answer = perfect_answer(environment, task)
    if answer is None:
        return None
    name = environment_name(environment)
    rollout = Rollout.from_answer(task, answer)
    error = await grade(environment, task, rollout)
    if error is None and has_judge(environment):
        error = await grade(environment, task, Rollout.from_answer(task, WRONG_ANSWER))
    if isinstance(error, LLMError):
        raise RunStopped("judge refused", f"{name}: the judge gives no verdict: {error}", 3)
    if error is not None:
        raise ConfigError(
            f"environment {name} cannot score the right answer to its first task ({task.id}): "
            f"{describe_exception(error)}\nNothing was sampled yet."
        ) from error
    if rollout.score is not None and rollout.score.value < 1.0:
        return f"the right answer to the first task ({task.id}) scores {rollout.score.value:.3g}, not 1"
    return None


def perfect_answer(environment: Environment, task: Task) -> str | None:
    """The right answer to a task; None where the environment knows none."""
    if task.gold is None and type(environment).perfect_answer is Environment.perfect_answer:
        return None
    try:
        return environment.perfect_answer(task)
    except Exception:
        return None
