"""Records the teachers' sessions as real rollouts through RLMEnv and the real REPL, so that observations are real.

The plans that are played are in `teachers.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from rlm_env.llm.base import LLM, Sampling, ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.protocol import user_message
from rlm_env.rollout import StopReason
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tiny_rlm.questions import read_question
from tiny_rlm.teachers import Plan, make_plan


class Teacher(LLM):
    """Plays one plan, turn by turn."""

    name = "teacher"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        turn = sum(message["role"] == "assistant" for message in messages)
        reply = self.plan.replies[turn] if turn < len(self.plan.replies) else self.plan.fallback
        return Completion(reply if isinstance(reply, str) else reply(messages[-1]["content"]), finish_reason="stop")


@dataclass(frozen=True, slots=True)
class Session:
    """A recorded session: its messages, its strategy, and its score."""

    messages: list[Message]
    strategy: str
    score: float


def opening(env: RLMEnv, task: Task, seed: str, lines: int | None = None) -> list[Message]:
    """A conversation up to its first reply. It describes a context of `lines` lines, or the task's own context.

    There is no observation yet, so no REPL is needed, and the right reply is the same at any length.
    """
    if lines is not None:
        task = replace(task, context="\n".join(islice(cycle(task.context.split("\n")), lines)))
    reply = make_plan(read_question(task.question), random.Random(seed)).replies[0]
    assert isinstance(reply, str), "a first reply cannot depend on an observation"
    return [
        {"role": "system", "content": env.system_prompt(use_tool=False)},
        {"role": "user", "content": user_message(task)},
        {"role": "assistant", "content": reply},
    ]


async def record_sessions(
    env: RLMEnv,
    tasks: Sequence[Task],
    sub: LLM,
    seed: int,
    concurrency: int = 4,
    on_session: Callable[[], None] = lambda: None,
    strategy: str | None = None,
) -> list[Session]:
    """One session per task, in the order of the tasks, with the given strategy or with drawn ones.

    Raises RuntimeError if a rollout does not end with a ready answer, since a teacher's code must be wrong then.
    """
    slots = asyncio.Semaphore(concurrency)

    async def one(index: int, task: Task) -> Session:
        plan = make_plan(read_question(task.question), random.Random(f"{seed}/{index}"), strategy)
        async with slots:
            rollout = await env.rollout(task, Teacher(plan), sub, id=f"{seed}-{index}")
        on_session()
        if rollout.stop_reason is not StopReason.READY:
            raise RuntimeError(
                f"strategy {plan.strategy} on task {task.id} ended with {rollout.stop_reason} after "
                f"{len(rollout.turns)} turns: {rollout.error or rollout.turns[-1].observation}"
            )
        messages = [{"role": m["role"], "content": m["content"]} for m in rollout.messages]
        return Session(messages, plan.strategy, env.score(task, rollout).value)

    return list(await asyncio.gather(*(one(i, task) for i, task in enumerate(tasks))))
