"""What scaffolds without a REPL share: one root conversation under the rollout's budget, all on record.

Covered: the record, asking the root LLM, how a rollout ends. Not covered: what is asked (`standard.py`, `summary.py`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from rlm_env.environment import Environment, environment_name
from rlm_env.llm.base import LLM, ContextOverflow, EngineUnavailable, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.protocol import strip_thinking
from rlm_env.rollout import Rollout, StopReason, Turn
from rlm_env.scaffolds.budget import Budget
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.sub_llm import FINAL
from rlm_env.task import Task
from rlm_env.tools.box import ToolBox, read_calls, tell

SHARED = frozenset(
    {"root", "max_turns", "max_root_tokens", "max_seconds", "tools_for", "tool_timeout", "max_tool_chars"}
)
"""Fields of the configuration that have an effect in every scaffold of this kind."""


@dataclass(slots=True)
class Chat:
    """One rollout of a scaffold without a REPL, as it goes on."""

    task: Task
    root: LLM
    sub: LLM
    config: RLMConfig
    budget: Budget
    record: Rollout
    tools: ToolBox
    """The environment's tools; false where there are none."""

    @property
    def native(self) -> bool:
        """Whether tools are called through the engine, or in fenced blocks of the reply."""
        return self.root.supports_tools

    def opening(self, text: str) -> list[Message]:
        """The conversation that begins with this user message."""
        messages: list[Message] = [{"role": "user", "content": text}]
        if self.tools and not self.native:
            messages.insert(0, {"role": "system", "content": self.tools.instructions()})
        return messages

    async def step(self, messages: list[Message]) -> Completion | None:
        """One turn. A reply that calls tools is added to `messages` with what came of them; any other is returned.

        On the last turn that the budget allows, the answer is asked for and tools are not offered.
        """
        last = bool(self.tools) and self.budget.max_turns - self.budget.turns <= 1
        if last:
            _ask_for_answer(messages)
        completion = await self.ask_root(
            messages, self.tools.schemas if self.native and self.tools and not last else None
        )
        calls = read_calls(completion, native=self.native) if self.tools else []
        if not calls or last:
            return completion
        turn = self.record.turns[-1]
        turn.tool_results = await self.tools.run(calls)
        told = tell(turn.tool_results, native=self.native)
        turn.observation = "\n".join(message["content"] for message in told)
        messages += [completion.message(), *told]
        return None

    async def ask_root(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        """One turn of the root LLM, on record. Raises what the engine raises."""
        start = time.monotonic()
        completion = await self.root.complete(messages, tools, sampling or self.config.root)
        self.budget.turns += 1
        self.budget.root += completion.usage
        self.record.turns.append(Turn.from_completion(completion, root_seconds=time.monotonic() - start))
        return completion

    def finish(self, completion: Completion) -> StopReason:
        """Takes a reply as the answer. One that calls tools when its turns are used up is none."""
        if self.tools and read_calls(completion, native=self.native):
            return StopReason.MAX_TURNS
        self.record.answer = strip_thinking(completion.text).strip()
        return StopReason.LENGTH if completion.finish_reason == "length" else StopReason.READY


class ChatScaffold(ABC):
    """A scaffold whose root LLM answers in plain replies. A subclass says how, in `_answer`."""

    name: ClassVar[str]
    uses: ClassVar[frozenset[str]]
    """Fields of the configuration that have an effect, besides those that all scaffolds here share."""
    Config: ClassVar[type[RLMConfig]] = RLMConfig

    def __init__(self, environment: Environment, config: RLMConfig | None = None) -> None:
        self.environment = environment
        self.config = config or self.Config()

    async def rollout(self, task: Task, root: LLM, sub: LLM | None = None, *, id: str | None = None) -> Rollout:
        """One rollout; `sub` defaults to `root`. Raises only EngineUnavailable and CancelledError."""
        config = self.config
        budget = Budget(
            config.max_turns, config.max_root_tokens, config.max_sub_tokens, config.max_sub_calls, config.max_seconds
        )
        record = Rollout(
            id=id or uuid.uuid4().hex,
            task_id=task.id,
            environment=environment_name(self.environment),
            scaffold=self.name,
            info={"task": task.info, "root": root.name, "sampling": {"root": config.root.recorded()}},
        )
        given = self.environment.tools(task) if config.tools_for != "none" else ()
        tools = ToolBox(given, config.tool_timeout, config.max_tool_chars)
        if tools:
            record.info["tools"] = {"for": ["root"], "names": [tool.name for tool in tools.tools]}
        chat = Chat(task, root, sub or root, config, budget, record, tools)
        try:
            async with asyncio.timeout(config.max_seconds):
                record.stop_reason = await self._answer(chat)
        except TimeoutError:
            record.stop_reason = StopReason.WALL_TIME
        except ContextOverflow as error:
            record.stop_reason = StopReason.CONTEXT_OVERFLOW
            if error.prompt_tokens is not None:
                record.metrics["overflow_prompt_tokens"] = error.prompt_tokens
        except EngineUnavailable:
            raise
        except LLMError as error:
            record.stop_reason, record.error = StopReason.ERROR, f"{type(error).__name__}: {error}"
        record.timing.total = time.monotonic() - budget.started
        record.timing.root = sum(turn.root_seconds for turn in record.turns)
        record.root_usage, record.sub_usage = budget.root, budget.sub
        record.metrics |= {
            "turns": len(record.turns),
            "sub_calls": len(record.sub_calls),
            "root_prompt_tokens_max": max((turn.usage.prompt_tokens for turn in record.turns), default=0),
        }
        if tools:
            record.metrics |= tools.metrics()
        return record

    @abstractmethod
    async def _answer(self, chat: Chat) -> StopReason:
        """Leaves an answer in the record, and says how that ended. May raise LLMError."""

    def describe(self) -> dict[str, Any]:
        """What is recorded with a run."""
        return {
            "scaffold": self.name,
            "config": self.config.model_dump(mode="json", exclude_none=True, include=self.uses | SHARED),
        }

    async def aclose(self) -> None:
        """Releases what the environment's tools hold."""
        await self.environment.aclose()


def _ask_for_answer(messages: list[Message]) -> None:
    last = messages[-1]
    if last["role"] == "user":  # some chat templates take no two user messages in a row
        messages[-1] = {**last, "content": f"{last['content']}\n\n{FINAL}"}
    else:
        messages.append({"role": "user", "content": FINAL})
