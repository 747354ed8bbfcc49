"""Records the teachers' sessions as real rollouts through RLMEnv and the real REPL, so that observations are real.

A session gives a conversation of the root LLM and those of its sub-LLMs, tool calls and results included. Beside whole
sessions there are openings, which end with the first reply and need no REPL, and the standard scaffold's answers.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from typing import Any, Self

from rlm_env.llm.base import LLM, Sampling, ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.protocol import user_message
from rlm_env.rollout import StopReason
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scaffolds.standard import StandardScaffold
from rlm_env.task import Task
from rlm_env.tools.box import ToolBox
from tiny_rlm.lessons import Lessons, Plan


class Teacher(LLM):
    """Plays one plan, turn by turn."""

    name = "teacher"
    supports_tools = True
    """As the engine of tiny-rlm does."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        turn = sum(message["role"] == "assistant" for message in messages)
        reply = self.plan.replies[turn] if turn < len(self.plan.replies) else self.plan.fallback
        return Completion(reply if isinstance(reply, str) else reply(messages[-1]["content"]), finish_reason="stop")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of which the last is a reply, and the tools that were offered."""

    messages: list[Message]
    tools: list[ToolSchema] | None = None


class Recorder(LLM):
    """Passes requests on to another LLM and keeps the conversations, each once, in `conversations`.

    A request that goes on from an earlier reply under the same tools prolongs its conversation; any other begins one.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.name = llm.name
        self.supports_tools = llm.supports_tools
        self._found: dict[str, Conversation] = {}

    @property
    def conversations(self) -> list[Conversation]:
        """In the order in which they ended."""
        return list(self._found.values())

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        completion = await self.llm.complete(messages, tools, sampling)
        said = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        whole = [dict(message) for message in [*messages, completion.message()]]
        self._found.pop(_key(messages[: said + 1], tools), None)
        self._found[_key(whole, tools)] = Conversation(whole, tools)
        return completion


def _key(messages: list[Message], tools: list[ToolSchema] | None) -> str:
    return json.dumps([messages, tools], sort_keys=True)


@dataclass(frozen=True, slots=True)
class Session:
    """A recorded session: the conversation of the root LLM, those of its sub-LLMs, the strategy, and the score."""

    environment: str
    strategy: str
    score: float
    root: Conversation
    subs: list[Conversation]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        subs = [Conversation(**sub) for sub in record["subs"]]
        return cls(**{**record, "root": Conversation(**record["root"]), "subs": subs})


async def record_sessions(
    env: RLMEnv,
    lessons: Lessons,
    tasks: Sequence[Task],
    seed: int,
    *,
    strategy: str | None = None,
    concurrency: int = 4,
    on_session: Callable[[], None] = lambda: None,
) -> list[Session]:
    """One session per task, in the order of the tasks, with the given strategy or with drawn ones: where `env` has no
    sub-LLMs, of those that call none.

    Raises RuntimeError if a rollout does not end with a ready answer, since a teacher's code must be wrong then.
    """
    slots = asyncio.Semaphore(concurrency)
    scripted = lessons.sub(tasks)

    async def one(index: int, task: Task) -> Session:
        draw = random.Random(f"{seed}/{index}")
        plan = _draw_plan(env, lessons, task, draw) if strategy is None else lessons.plan(task, strategy, draw)
        root, sub = Recorder(Teacher(plan)), Recorder(scripted)
        async with slots:
            rollout = await env.rollout(task, root, sub, id=f"{seed}-{index}")
        on_session()
        if rollout.stop_reason is not StopReason.READY:
            raise RuntimeError(
                f"{lessons.environment}: strategy {plan.strategy} on task {task.id} ended with {rollout.stop_reason} "
                f"after {len(rollout.turns)} turns: {rollout.error or rollout.turns[-1].observation}"
            )
        score = env.score(task, rollout).value
        subs = [replace(c, messages=lessons.varied(c.messages, draw)) for c in sub.conversations]
        return Session(lessons.environment, plan.strategy, score, root.conversations[-1], subs)

    return list(await asyncio.gather(*(one(i, task) for i, task in enumerate(tasks))))


def opening(env: RLMEnv, lessons: Lessons, task: Task, seed: str, size: int | None = None) -> Conversation:
    """A conversation up to its first reply. It describes the task's own context, or one of `size` lines or files.

    There is no observation yet, so no REPL is needed, and the right reply is the same at any length.
    """
    reply = _draw_plan(env, lessons, task, random.Random(seed)).replies[0]
    assert isinstance(reply, str), "a first reply cannot depend on an observation"
    if size is not None:
        task = _resized(task, size)
    tools = ToolBox(env.environment.tools(task))
    return Conversation(
        [
            {"role": "system", "content": env.system_prompt(use_tool=False, tools=tools)},
            {"role": "user", "content": user_message(task)},
            {"role": "assistant", "content": reply},
        ]
    )


def _draw_plan(env: RLMEnv, lessons: Lessons, task: Task, draw: random.Random) -> Plan:
    return lessons.draw_plan(task, draw, sub_llms=env.config.sub_llms)


def _resized(task: Task, size: int) -> Task:
    """The task with its lines or files repeated up to that number; a task without a context stays as it is."""
    context = task.context
    if isinstance(context, str) and context:
        return replace(task, context="\n".join(islice(cycle(context.split("\n")), size)))
    if isinstance(context, dict):
        items = enumerate(islice(cycle(context.items()), size))
        return replace(task, context={f"{i}{name}": value for i, (name, value) in items})
    return task


async def record_with_tools(env: RLMEnv, lessons: Lessons, tasks: Sequence[Task], seed: int) -> list[Conversation]:
    """What the scripted sub-LLM makes of the tasks' questions with the environment's tools, without a REPL: the
    standard scaffold's conversations, and if the questions are requests (`Lessons.requests`) those of a sub-LLM."""
    scaffold = StandardScaffold(
        env.environment, env.config.model_copy(update={"max_turns": 2 * env.config.max_tool_turns})
    )
    scripted = lessons.sub(tasks)

    async def one(index: int, task: Task) -> Conversation:
        recorder = Recorder(scripted)
        await scaffold.rollout(task, recorder, id=f"{seed}-tools-{index}")
        (found,) = recorder.conversations
        return replace(found, messages=lessons.varied(found.messages, random.Random(f"{seed}/tools/{task.id}/{index}")))

    return [await one(index, task) for index, task in enumerate(tasks)]


def standard_answer(env: RLMEnv, task: Task) -> Conversation:
    """The standard scaffold's prompt, with the whole context in it, and the right answer."""
    prompt = env.environment.standard_prompt(task)
    return Conversation(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": env.perfect_answer(task)}]
    )
