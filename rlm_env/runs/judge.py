"""The judge of a run, as its environments get it: its tokens are counted, and an empty reply is no verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rlm_env.llm.base import LLM, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message, Usage
from rlm_env.replies import visible_text


class CountedJudge(LLM):
    """Asks the engine that `engine()` gives. No verdict is not a wrong answer: an empty reply is an error.

    Closing it closes nothing: that is up to whoever opened the engine, and the environment may be used again.
    """

    def __init__(self, name: str, engine: Callable[[], Awaitable[LLM]]) -> None:
        self.name = name
        self._engine = engine
        self._usage = Usage()
        self.asked = False
        """It was asked at least once."""

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        llm = await self._engine()
        self.asked = True
        try:
            completion = await llm.complete(messages, tools, sampling)
        except LLMError as error:
            if error.usage is not None:
                self._usage += error.usage
            raise
        self._usage += completion.usage
        if not visible_text(completion).strip():
            why = f" (finish_reason {completion.finish_reason})" if completion.finish_reason != "stop" else ""
            raise LLMError(f"{self.name} gave no verdict: its reply is empty{why}")
        return completion

    async def describe(self) -> dict[str, Any]:
        return await (await self._engine()).describe()

    def take_usage(self) -> Usage:
        """The tokens since the last call."""
        usage, self._usage = self._usage, Usage()
        return usage
