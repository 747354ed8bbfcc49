"""Deterministic engines for tests of what stands above an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rlm_env.llm.base import LLM, LLMError, Request
from rlm_env.messages import Completion, Message, Usage

Reply = str | Completion | LLMError


class StubLLM(LLM):
    """Answers with `reply(messages)`; counts a token per word. An LLMError that is returned is raised."""

    name = "stub"

    def __init__(self, reply: Callable[[list[Message]], Reply], *, delay: float = 0.0, supports_tools: bool = False):
        self.reply = reply
        self.delay = delay
        self.supports_tools = supports_tools
        self.seen: list[list[Message]] = []
        self.batches: list[int] = []

    async def complete(self, messages, tools=None, sampling=None) -> Completion:
        self.seen.append([dict(message) for message in messages])
        await asyncio.sleep(self.delay)
        reply = self.reply(messages)
        if isinstance(reply, LLMError):
            raise reply
        if isinstance(reply, str):
            reply = Completion(reply, finish_reason="stop")
        if not reply.usage.calls:
            prompt = sum(len(str(message.get("content")).split()) for message in messages)
            reply.usage = Usage(prompt, len(reply.text.split()), 0, 1)
        return reply

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        self.batches.append(len(requests))
        return await super().complete_many(requests)


def script(*replies: Reply) -> StubLLM:
    """A root LLM that gives these replies, one a turn, whatever it is told; the last one repeats."""
    return StubLLM(lambda messages: replies[min(sum(m["role"] == "assistant" for m in messages), len(replies) - 1)])


def echo() -> StubLLM:
    """A sub-LLM that answers every prompt with the prompt in capitals."""
    return StubLLM(lambda messages: messages[-1]["content"].upper())


def fenced(code: str) -> str:
    """A reply that runs `code`."""
    return f"```repl\n{code}\n```"
