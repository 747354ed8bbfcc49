"""A scripted LLM that answers the teachers' requests with the tools, and whole questions in the standard scaffold."""

from __future__ import annotations

import json
import random

from rlm_env.llm.base import LLM, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message
from tiny_rlm.deepdive.quest import Quest, is_vague, read_request
from tiny_rlm.deepdive.walk import UNKNOWN, Call, Walk, skip_the_link, walk


class Researcher(LLM):
    """Walks through the web, one tool call a reply: what was called before is played again on its results.

    `weak`: share of the requests that it answers from the first page or by a guess, always the same ones.
    """

    name = "scripted-researcher"
    supports_tools = True

    def __init__(self, weak: float) -> None:
        self.weak = weak

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        prompt = messages[0]["content"]
        quest = read_request(prompt)
        if quest is None and not is_vague(prompt):
            raise LLMError("no teacher writes such a prompt")
        if quest is None or not tools:
            return Completion(UNKNOWN, finish_reason="stop")
        steps = self._way(quest, random.Random(prompt))
        results = [message["content"] for message in messages if message["role"] == "tool"]
        try:
            call = next(steps)
            for result in results:
                call = steps.send(result)
        except StopIteration as end:
            return Completion(f"Answer: {end.value}" if quest.formed else end.value, finish_reason="stop")
        said = f"{call.said}\n" if call.said else ""
        return Completion(said, tool_calls=[_tool_call(call, len(results))], finish_reason="tool_calls")

    def _way(self, quest: Quest, draw: random.Random) -> Walk:
        if draw.random() >= self.weak:
            return walk(quest)
        return draw.choice([skip_the_link, _guess_at_once])(quest)


def guess(asked: str, draw: random.Random) -> str:
    """An answer of the right form, or that there is none."""
    if asked == "called":
        return UNKNOWN
    if asked == "born":
        return f"{draw.randint(1, 28)} May {draw.randint(1740, 1929)}"
    return str(draw.randint(100, 999) if asked.endswith("metres") else draw.randint(1100, 1929))


def _guess_at_once(quest: Quest) -> Walk:
    """Calls no tool."""
    yield from ()
    return guess(quest.asked, random.Random(quest.clue))


def _tool_call(call: Call, number: int) -> dict:
    function = {"name": call.tool, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": f"call_{number}", "type": "function", "function": function}
