"""A scripted sub-LLM: a function from a prompt to the right answer, with a window like the real one's."""

from __future__ import annotations

from collections.abc import Callable

from rlm_env.llm.base import LLM, ContextOverflow, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message

WINDOW = 4800
"""Characters of a prompt: about as much as tiny-rlm's window of tokens holds, so that a whole long context in one call
overflows in the lessons as it does later."""


class ScriptedSub(LLM):
    """Answers each prompt by `answer`, which returns None for a prompt that no teacher writes."""

    name = "scripted-sub"

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.answer = answer

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        prompt = messages[-1]["content"]
        if len(prompt) > WINDOW:
            raise ContextOverflow(None, None)
        text = self.answer(prompt)
        if text is None:
            raise LLMError("no teacher writes such a prompt")
        return Completion(text, finish_reason="stop")


def conversation(prompt: str, reply: str) -> list[Message]:
    """A call of the sub-LLM that is to be learned."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
