"""The few numbers of a scored rollout that statistics and reports need.

A rollout can hold megabytes of tokens; a long run keeps only these numbers in memory. Not covered: means over
rollouts (`summary.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlm_env.evals.grading import is_unscored
from rlm_env.evals.outcomes import Outcome, outcome_of, sub_calls_failed
from rlm_env.evals.programs import WrittenProgram, program_of
from rlm_env.evals.usage import rollout_usage
from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, StopReason, Timing
from rlm_env.runs.prices import Price, rollout_cost
from rlm_env.task import context_length

Key = tuple[str, str, int]
"""(scaffold, task id, repeat): identifies a rollout within a run."""


@dataclass(frozen=True, slots=True)
class RolloutStats:
    """The numbers of one rollout. Tokens as the engine counted them, seconds as the host did."""

    scaffold: str
    task_id: str
    repeat: int
    outcome: Outcome
    stop_reason: StopReason
    score: float | None
    answer: str
    error: str | None
    unscored: bool
    """It ended well, but the scorer or the judge failed."""
    length: int | None
    """Tokens of the context: `length_tokens` of the task's info; None where it has none."""
    turns: int
    root: Usage
    sub: Usage
    sub_calls: int
    failed_sub_calls: int
    sub_error: str | None
    """The reason of the first sub-call that failed."""
    longest_prompt: int
    """Tokens of the longest root prompt that the engine accepted."""
    needed_prompt: int | None
    """Tokens of the prompt that overflowed, where the engine could tell."""
    timing: Timing
    sandbox: str | None
    """The isolation level of the REPL; None where there was no REPL."""
    cost: float | None
    usage: dict[str, float]
    """See `rlm_env.evals.usage`."""
    metrics: dict[str, float]
    """`Score.metrics`: what the scorer measured besides the reward."""
    program: WrittenProgram | None
    """What the code of its cells does; None for a scaffold without a REPL."""

    @property
    def charged_tokens(self) -> int | None:
        """Tokens of the root LLM, including a prompt that did not fit or was not answered in time; None if the length
        of that prompt is unknown. Otherwise a scaffold that cannot even start would look cheap."""
        spent = self.root.prompt_tokens + self.root.completion_tokens
        if self.root.untold:
            return None
        if self.outcome is Outcome.OVERFLOW:
            missing = self.needed_prompt or self.length
            return None if missing is None else spent + missing
        return spent or self.length

    def result(self) -> dict[str, Any]:
        """One line of results.jsonl: flat, under the names that dashboards know.

        The scorer's metrics are prefixed with `metrics.`, so that whatever a scorer calls them, they cannot replace
        the reward or the outcome.
        """
        return {
            "task_id": self.task_id,
            "scaffold": self.scaffold,
            "repeat": self.repeat,
            "outcome": self.outcome.value,
            "stop_reason": self.stop_reason.value,
            "reward": self.score,
            "answer": self.answer,
            "error": self.error,
            "cost_usd": self.cost,
            **self.usage,
            **{f"metrics.{name}": value for name, value in self.metrics.items()},
        }

    @property
    def key(self) -> Key:
        return self.scaffold, self.task_id, self.repeat


def stats_of(rollout: Rollout, prices: tuple[Price, Price] | None = None, *, read_code: bool = True) -> RolloutStats:
    """The numbers of a stored rollout. `prices`: of the root and of the sub-LLM. `read_code`: False leaves `program` to
    the caller."""
    outcome = outcome_of(rollout)
    needed = rollout.metrics.get("overflow_prompt_tokens")
    return RolloutStats(
        scaffold=rollout.scaffold,
        task_id=rollout.task_id,
        repeat=int(rollout.info.get("repeat", 0)),
        outcome=outcome,
        stop_reason=rollout.stop_reason,
        score=rollout.score.value if rollout.score and outcome is not Outcome.ERROR else None,
        answer=rollout.answer,
        error=rollout.error or sub_calls_failed(rollout),
        unscored=is_unscored(rollout),
        length=context_length(rollout.info.get("task", {})),
        turns=len(rollout.turns),
        root=rollout.root_usage,
        sub=rollout.sub_usage,
        sub_calls=len(rollout.sub_calls),
        failed_sub_calls=sum(call.error is not None for call in rollout.sub_calls),
        sub_error=next((call.error for call in rollout.sub_calls if call.error is not None), None),
        longest_prompt=max((turn.usage.prompt_tokens for turn in rollout.turns), default=0),
        needed_prompt=None if needed is None else int(needed),
        timing=rollout.timing,
        sandbox=rollout.info.get("sandbox", {}).get("level"),
        cost=rollout_cost(rollout, *prices) if prices else None,
        usage=rollout_usage(rollout),
        metrics=rollout.score.metrics if rollout.score else {},
        program=program_of(rollout) if read_code else None,
    )
