"""Plays the lessons' plans in the real REPL and scores them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import rlm_env
from rlm_env.llm import LLM
from rlm_env.messages import Completion
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tiny_rlm.lessons import Lessons, Plan

CONFIG = {"prompt": "tiny", "action": "fence", "max_turns": 6, "max_observation_chars": 400, "code_timeout": 10.0}


class PlanPlayer(LLM):
    """A root LLM that gives a plan's replies, turn by turn."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    async def complete(self, messages, tools=None, sampling=None):
        turn = sum(message["role"] == "assistant" for message in messages)
        reply = self.plan.replies[turn] if turn < len(self.plan.replies) else self.plan.fallback
        return Completion(reply if isinstance(reply, str) else reply(messages[-1]["content"]), finish_reason="stop")


@dataclass
class Stage:
    lessons: Lessons
    env: RLMEnv
    tasks: list[Task]

    async def play(self, strategy: str, task: Task, seed: int = 0) -> tuple[Rollout, float]:
        plan = self.lessons.plan(task, strategy, random.Random(f"{seed}/{task.id}"))
        rollout = await self.env.rollout(task, PlanPlayer(plan), self.lessons.sub(self.tasks))
        return rollout, self.env.score(task, rollout).value

    async def play_all(self, strategy: str, tasks: list[Task] | None = None) -> list[float]:
        """The scores of a strategy on all tasks; each session has to end with an answer that it says is ready."""
        played = await asyncio.gather(*(self.play(strategy, task) for task in tasks or self.tasks))
        for rollout, _ in played:
            assert rollout.stop_reason is StopReason.READY, (strategy, rollout.turns[-1].observation, rollout.error)
        return [score for _, score in played]


@asynccontextmanager
async def stage(lessons: Lessons, n: int, **options) -> AsyncIterator[Stage]:
    """The lessons' environment and its first `n` training tasks."""
    env = rlm_env.load_environment(lessons.environment, **{**lessons.options, **options}, **CONFIG)
    async with env:
        yield Stage(lessons, env, env.tasks("train").take(n))


def first_reply(lessons: Lessons, task: Task, strategy: str, seed: int = 0) -> str:
    reply = lessons.plan(task, strategy, random.Random(seed)).replies[0]
    assert isinstance(reply, str), "a first reply cannot depend on an observation"
    return reply
