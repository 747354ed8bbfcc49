"""Who answers prompts: the interface that every engine has, and the words for what goes in and comes out.

Covered: sampling settings, requests, completions, the error types. Not covered: any transport.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlm_env.messages import Completion, Message

ToolSchema = dict[str, Any]
"""A tool in the OpenAI shape: {"type": "function", "function": {"name", "description", "parameters"}}."""


class Sampling(BaseModel):
    """How to sample one completion. Equal settings may travel in one request; a `seed` never shares one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=4096, ge=1)
    """Most tokens of one completion; an engine that knows its window lowers it to what is left of it."""
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    """Passed to the endpoint as it is (for example `min_p`, `chat_template_kwargs`)."""

    def recorded(self) -> dict[str, Any]:
        """What is recorded with a rollout: every setting, as JSON would give it back."""
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(slots=True)
class Request:
    """One prompt of a batch."""

    messages: list[Message]
    tools: list[ToolSchema] | None = None
    sampling: Sampling | None = None


class LLMError(Exception):
    """A request that got no completion. `str(error)` is one line, fit to be shown to a model."""


class ContextOverflow(LLMError):
    """The prompt does not fit the model's window."""

    def __init__(self, prompt_tokens: int | None, window: int | None) -> None:
        size = f"{prompt_tokens:,} tokens" if prompt_tokens is not None else "it"
        super().__init__(f"prompt too long: {size} against a window of {window:,}" if window else "prompt too long")
        self.prompt_tokens = prompt_tokens
        self.window = window


class EngineUnavailable(LLMError):
    """The engine cannot be reached or has died: no request will succeed until it is back."""


class LLM(ABC):
    """An engine that answers prompts. Safe to use from many coroutines of one event loop at once.

    A subclass needs `complete`; one whose transport can carry a batch overrides `complete_many` too.
    """

    name: str = "llm"
    context_window: int | None = None
    """Most tokens of prompt and completion together, where known."""
    supports_tools: bool = False
    """Whether `tools` reach the model and come back parsed; if not, code is asked for in fenced blocks."""
    concurrency: int = 64
    """Most single requests in flight at once."""

    @abstractmethod
    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        """Answers one prompt. Raises ContextOverflow, EngineUnavailable or another LLMError."""

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        """Answers a batch: one result per request, in order; a failed one is its error, the others stand."""
        slots = asyncio.Semaphore(self.concurrency)

        async def one(request: Request) -> Completion | LLMError:
            async with slots:
                try:
                    return await self.complete(request.messages, request.tools, request.sampling)
                except LLMError as error:
                    return error

        return list(await asyncio.gather(*(one(request) for request in requests)))

    def count_tokens(self, messages: list[Message], tools: list[ToolSchema] | None = None) -> int | None:
        """Tokens of the prompt that these messages make, or None where only the endpoint could tell."""
        return None

    def describe(self) -> dict[str, Any]:
        """What is recorded with every result: the model's name and all that is known of the engine."""
        return {"model": self.name, "context_window": self.context_window}

    async def aclose(self) -> None:
        """Closes connections. An engine process is stopped by whoever started it."""
