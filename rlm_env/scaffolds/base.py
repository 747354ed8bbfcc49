"""What all scaffolds share: how a rollout is opened, charged for its root turns, ended and closed.

A scaffold says in `_play` how it gets from the task to an answer. The tool loop is in `conversation.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from rlm_env.context import in_files
from rlm_env.environment import Environment, environment_name
from rlm_env.events import BudgetSpent, Emitter, OnEvent, RolloutEnded, TurnReplied
from rlm_env.llm.base import LLM, ContextOverflow, EngineUnavailable, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.repl import ReplError, ReplPools
from rlm_env.replies import visible_text
from rlm_env.rollout import Reply, Rollout, StopReason, Turn
from rlm_env.scaffolds.budget import Budget
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scoring.errors import failed
from rlm_env.task import Task
from rlm_env.tools.box import ToolBox, ToolUser

ONLY_REASONING = "the endpoint sent reasoning and no answer"


def ended_in_thought(reply: Completion | Reply) -> bool:
    """True for a reply of an endpoint that has nothing but reasoning. Where there are token ids, the text is all that
    the model wrote, and its answer is empty."""
    thought = reply.reasoning or reply.text.strip()
    nothing_else = not reply.tool_calls and not visible_text(reply).strip()
    return bool(thought) and nothing_else and reply.completion_ids is None and reply.finish_reason != "length"


async def in_thread_if_files(read: Callable[[Task], str], task: Task) -> str:
    """`read(task)`, in a thread where the context lies in files, so that reading them does not block the event loop."""
    return await asyncio.to_thread(read, task) if in_files(task.context) else read(task)


def _as_json(value: Any) -> Any:
    """A value in a form that JSON has: numbers, texts, lists and dicts as they are, anything else as text."""
    try:
        return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
    except (TypeError, ValueError, RecursionError):
        return repr(value)


@dataclass(slots=True)
class Episode:
    """One rollout in progress: its task and models, what it may use, and its record."""

    config: RLMConfig
    task: Task
    root: LLM
    sub: LLM
    tools: ToolBox
    """The environment's tools; empty (and false) where nobody may call any."""
    tool_users: frozenset[ToolUser]
    """Who may call them; empty where there are none."""
    budget: Budget
    record: Rollout
    events: Emitter

    async def ask_root(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        """One turn of the root LLM, charged to the budget and recorded. Raises what the engine raises."""
        start = time.monotonic()
        try:
            completion = await self.root.complete(messages, tools, sampling or self.config.root)
        except LLMError as error:
            if error.usage is not None:
                self.budget.root += error.usage
            raise
        seconds = time.monotonic() - start
        self.budget.turns += 1
        self.budget.root += completion.usage
        self.record.timing.root += seconds
        self.record.turns.append(Turn.from_completion(completion, root_seconds=seconds))
        if self.events:
            self.events.emit(TurnReplied, index=len(self.record.turns) - 1, turn=self.record.turns[-1])
            self.tell_spent()
        return completion

    def tell_spent(self) -> None:
        """Emits what the budget has come to."""
        budget = self.budget
        self.events.emit(BudgetSpent, turns=budget.turns, sub_calls=budget.sub_calls, root=budget.root, sub=budget.sub)

    async def run(self, play: Awaitable[StopReason]) -> Rollout:
        """Awaits the scaffold's part and closes the record. What fails becomes the stop reason, a defect in the
        environment or the scaffold too, once turns were paid for. Before that it is raised, as are EngineUnavailable
        and CancelledError at any time, and only the listener gets the record."""
        record = self.record
        try:
            record.stop_reason = await play
        except ContextOverflow as error:
            record.stop_reason = StopReason.CONTEXT_OVERFLOW
            if error.prompt_tokens is not None:
                record.metrics["overflow_prompt_tokens"] = error.prompt_tokens
        except (LLMError, ReplError) as error:
            record.stop_reason, record.error = StopReason.ERROR, f"{type(error).__name__}: {error}"
            if isinstance(error, EngineUnavailable):
                raise
        except asyncio.CancelledError:
            record.stop_reason, record.error = StopReason.CANCELLED, "interrupted"
            raise
        except Exception as error:
            failed(record, error)
            if not record.turns and not record.sub_calls:
                raise
        finally:
            self._close()
            self.events.emit(RolloutEnded, rollout=record)
        return record

    def _close(self) -> None:
        """Copies times, usage and counts into the record."""
        record = self.record
        record.timing.total = time.monotonic() - self.budget.started
        record.root_usage, record.sub_usage = self.budget.root, self.budget.sub
        record.metrics |= {
            "turns": len(record.turns),
            "sub_calls": len(record.sub_calls),
            "root_prompt_tokens_max": max((turn.usage.prompt_tokens for turn in record.turns), default=0),
        }
        if self.tools:
            record.metrics |= self.tools.metrics()


class Scaffold(ABC):
    """One way of answering tasks. Safe for many rollouts at once on one event loop."""

    name: ClassVar[str]
    Config: ClassVar[type[RLMConfig]] = RLMConfig

    def __init__(
        self, environment: Environment, config: RLMConfig | None = None, *, pools: ReplPools | None = None
    ) -> None:
        """`pools`: where a scaffold that uses REPLs gets its pool; None: it starts and closes its own."""
        self.environment = environment
        self.config = config or self.Config()

    async def rollout(
        self,
        task: Task,
        root: LLM,
        sub: LLM | None = None,
        *,
        id: str | None = None,
        on_event: OnEvent | None = None,
    ) -> Rollout:
        """Runs one rollout; `sub` defaults to `root`. The result is not scored yet. `on_event` is called with each
        event.

        Whatever goes wrong with the model, its code or one request ends in the rollout's `stop_reason`. Raises
        EngineUnavailable where no rollout can succeed any more, and asyncio.CancelledError.
        """
        episode = self._begin(task, root, sub, id, on_event)
        return await episode.run(self._play(episode))

    @abstractmethod
    async def _play(self, episode: Episode) -> StopReason:
        """Leaves an answer in the record and returns how that ended. May raise LLMError and ReplError."""

    def open_record(self, task: Task, id: str | None = None) -> Rollout:
        """The record of a rollout that has not begun: its task, and nothing of models."""
        return Rollout(
            id=id or uuid.uuid4().hex,
            task_id=task.id,
            environment=environment_name(self.environment),
            scaffold=self.name,
            question=task.question,
            gold=_as_json(task.gold),
            context=task.context,
            info={"task": task.info},
        )

    def describe(self) -> dict[str, Any]:
        """For the record of a run: at least the scaffold's name and its configuration."""
        return {"scaffold": self.name, "config": self.config.model_dump(mode="json", exclude_none=True)}

    async def aclose(self) -> None:
        """Releases what the environment's tools hold. The scaffold can be used again afterwards."""
        await self.environment.aclose()

    def _tool_users(self) -> frozenset[ToolUser]:
        """Who may call the environment's tools, where it has any."""
        return frozenset() if self.config.tools_for == "none" else frozenset({"root"})

    def _begin(
        self, task: Task, root: LLM, sub: LLM | None, id: str | None, on_event: OnEvent | None = None
    ) -> Episode:
        """Opens the record of a rollout and starts its budget. Raises TypeError for what is no LLM."""
        for role, llm in (("root", root), ("sub", sub)):
            if isinstance(llm, str):
                example = "rlm_env.llm.OpenAIChat(MODEL, base_url=URL)"
                raise TypeError(f"{role} is the str {llm!r}; it must be an engine, for example {example}")
        config, budget = self.config, Budget.of(self.config)
        users = self._tool_users()
        tools = ToolBox(self.environment.tools(task) if users else (), config.tool_timeout, config.max_tool_chars)
        record = self.open_record(task, id)
        record.info |= {"root": root.name, "sampling": {"root": config.root.recorded()}}
        if tools:
            record.info["tools"] = {"for": sorted(users), "names": [tool.name for tool in tools.tools]}
        events = Emitter(record.id, on_event, budget.started)
        return Episode(config, task, root, sub or root, tools, users if tools else frozenset(), budget, record, events)
