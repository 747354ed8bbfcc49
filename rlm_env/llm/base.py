"""The interface of every engine, sampling settings, and the error types. Completions are in `messages.py`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from rlm_env.messages import Completion, Message, Usage

ToolSchema = dict[str, Any]
"""A tool in the OpenAI shape: {"type": "function", "function": {"name", "description", "parameters"}}."""


class Sampling(BaseModel):
    """How to sample one completion. Prompts with equal settings may share a request, unless they have a `seed`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(default=1.0, ge=0)
    """0: greedy. Training needs a temperature above 0."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1: the whole distribution, which training needs."""
    max_tokens: int = Field(default=4096, ge=1)
    """Upper limit for one completion; an engine that knows its window lowers it to the room that is left."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    seed: int | None = None
    """Of the engine's sampling, where it has one."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, for example `min_p` or `chat_template_kwargs`."""

    def recorded(self) -> dict[str, Any]:
        """Every setting as a JSON value, for the record of a rollout."""
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(slots=True)
class Request:
    """One prompt of a batch."""

    messages: list[Message]
    tools: list[ToolSchema] | None = None
    sampling: Sampling | None = None


class LLMError(Exception):
    """A request without a completion. `str(error)` is one line that can be shown to a model."""

    usage: Usage | None = None
    """Tokens that the failed request cost all the same, where the engine says so."""


class ContextOverflow(LLMError):
    """The prompt does not fit the model's window."""

    def __init__(self, prompt_tokens: int | None, window: int | None) -> None:
        size = f"{prompt_tokens:,} tokens" if prompt_tokens is not None else "it"
        super().__init__(f"prompt too long: {size} against a window of {window:,}" if window else "prompt too long")
        self.prompt_tokens = prompt_tokens
        self.window = window


class EngineUnavailable(LLMError):
    """The engine cannot be reached or has died; no request will succeed until it is back."""


class EngineRefused(EngineUnavailable):
    """The engine is there, but takes no request: the key, the model, the account or the address is wrong.

    `field`: the option to look at (`api_key`, `model`, `base_url`, `quota`); None where the refusal names none.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ToolsRefused(LLMError):
    """The engine takes no `tools`. `supports_tools` is False from now on, and the model can be asked again for fenced
    blocks."""


class LLM(ABC):
    """An engine that answers prompts. Safe to use from many coroutines of one event loop at once.

    A subclass implements `complete`; one that can send a batch as one request overrides `complete_many` too.
    """

    name: str = "llm"
    context_window: int | None = None
    """Tokens of prompt and completion together, where known."""
    supports_tools: bool = False
    """Whether the model gets `tools` natively and its calls come back parsed; if not, it is asked for fenced code."""
    concurrency: int = 64
    """Upper limit of single requests in flight."""

    @abstractmethod
    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        """Answers one prompt. Raises ContextOverflow, EngineUnavailable or another LLMError."""

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        """Answers a batch: one result per request, in order. A request that failed gives its error."""
        slots = asyncio.Semaphore(self.concurrency)

        async def one(request: Request) -> Completion | LLMError:
            async with slots:
                try:
                    return await self.complete(request.messages, request.tools, request.sampling)
                except LLMError as error:
                    return error

        return list(await asyncio.gather(*(one(request) for request in requests)))

    def count_tokens(self, messages: list[Message], tools: list[ToolSchema] | None = None) -> int | None:
        """Length of the prompt in tokens, or None where only the endpoint could count them."""
        return None

    @property
    def adaptations(self) -> list[str]:
        """One sentence for each way in which requests differ from what was asked for, because the endpoint refuses
        that. Grows while the engine is used."""
        return []

    async def preflight(self, sampling: Sampling | None = None) -> Usage:
        """Asks one small question before anything else is paid, where the engine is an endpoint of others, and returns
        what that cost. Raises EngineRefused, EngineUnavailable or another LLMError."""
        return Usage()

    async def describe(self) -> dict[str, Any]:
        """What is recorded with a run: the model's name, its window, the engine and its version. JSON values.

        Equal engines give equal descriptions, so it holds no address or port. An engine that has to be asked is
        asked once; what it does not tell is None. Raises nothing.
        """
        return {"model": self.name, "context_window": self.context_window}

    async def aclose(self) -> None:
        """Closes connections. An engine's process is stopped by whoever started it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
