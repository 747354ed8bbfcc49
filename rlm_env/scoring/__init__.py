"""Scoring a rollout: the judge, the rule for overflows, the environment's score. The only place that does it.

`score_rollout` is what evaluations, baselines and training call: the environment's `score` runs in a scorer process
within limits, so that it can neither block the event loop nor take the run down. `score` does the same at once, in this
process. What an answer is worth is decided by `Environment.score`.
"""

from __future__ import annotations

from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.scoring.apart import close_scorers, score_apart
from rlm_env.scoring.errors import ScorerKilled
from rlm_env.scoring.value import is_unanswered_overflow, score
from rlm_env.task import Task

__all__ = ["ScorerKilled", "close_scorers", "is_unanswered_overflow", "leave_verdict", "score", "score_rollout"]


async def leave_verdict(environment: Environment, task: Task, rollout: Rollout) -> None:
    """Asks the environment's judge, where it has one, for the verdict that `score` reads. Raises what that raises."""
    await environment.judge(task, rollout)


async def score_rollout(environment: Environment, task: Task, rollout: Rollout, *, ask_judge: bool = True) -> Score:
    """Asks the environment's judge, where it has one and `ask_judge` is on, then scores in a scorer process.

    Raises what judge and scorer raise, and ScorerKilled if the scorer breaks `environment.score_limits` or dies.
    """
    if is_unanswered_overflow(rollout):
        return score(environment, task, rollout)
    if ask_judge:
        await leave_verdict(environment, task, rollout)
    return await score_apart(environment, task, rollout)
