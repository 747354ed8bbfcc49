"""What scaffolds without a REPL share: the root LLM answers in a chat, and may call the environment's tools."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, ClassVar

from rlm_env.events import AnswerChanged
from rlm_env.llm.base import LLMError, ToolsRefused
from rlm_env.messages import UNREADABLE_CALL, Completion, Message
from rlm_env.replies import visible_text
from rlm_env.rollout import StopReason
from rlm_env.scaffolds.base import ONLY_REASONING, Episode, Scaffold, ended_in_thought
from rlm_env.scaffolds.conversation import ToolConversation, with_tool_protocol

SHARED = frozenset(
    {"root", "max_turns", "max_root_tokens", "max_seconds", "tools_for", "tool_timeout", "max_tool_chars"}
)
"""Fields of the configuration that have an effect in every scaffold of this kind."""

CALL_AGAIN = "Your tool call could not be read. Write it again, with a JSON object as its arguments."


class ChatScaffold(Scaffold):
    """A scaffold whose root LLM answers in plain replies. A subclass says how, in `_answer`."""

    uses: ClassVar[frozenset[str]]
    """Fields of the configuration that have an effect, besides those in `SHARED`."""

    async def _play(self, episode: Episode) -> StopReason:
        """Awaits the answer under the time limit, a second time without native tools where the engine takes none."""
        try:
            async with asyncio.timeout(episode.budget.seconds_left):
                try:
                    return await self._answer(episode)
                except ToolsRefused:
                    if episode.record.turns:
                        raise
                    return await self._answer(episode)  # the engine has said that it takes none, and is not sent any
        except TimeoutError:
            return StopReason.WALL_TIME

    @abstractmethod
    async def _answer(self, episode: Episode) -> StopReason:
        """Leaves an answer in the record and returns how that ended. May raise LLMError."""

    def describe(self) -> dict[str, Any]:
        """For the record of a run: the fields of the configuration that have an effect."""
        config = self.config.model_dump(mode="json", exclude_none=True, include=set(self.uses | SHARED))
        return {"scaffold": self.name, "config": config}


def opening_messages(episode: Episode, text: str) -> list[Message]:
    """The chat with the root LLM that begins with this user message."""
    native = episode.root.supports_tools
    return with_tool_protocol([{"role": "user", "content": text}], episode.tools, native=native)


class RootChat:
    """The chat with the root LLM of one rollout, from its opening messages on."""

    def __init__(self, episode: Episode, messages: list[Message]) -> None:
        self._episode = episode
        self._conversation = ToolConversation(messages, episode.tools, episode.root.supports_tools)

    async def step(self) -> Completion | None:
        """One turn. A reply that calls tools is added to the messages with its results; any other is returned.

        On the last turn that the budget allows, the answer is asked for and tools are not offered.
        """
        episode, conversation = self._episode, self._conversation
        if episode.tools and episode.budget.max_turns - episode.budget.turns <= 1:
            conversation.ask_for_answer()
        completion = await episode.ask_root(conversation.messages, conversation.offered)
        turn = episode.record.turns[-1]
        if conversation.closing or not conversation.calls(completion):
            if completion.finish_reason != UNREADABLE_CALL or conversation.closing:
                return completion
            conversation.add(completion)
            conversation.messages.append({"role": "user", "content": CALL_AGAIN})
            turn.observation = CALL_AGAIN
            return None
        conversation.add(completion)
        turn.observation = "\n".join(message["content"] for message in await conversation.run_calls(turn))
        return None

    def finish(self, completion: Completion) -> StopReason:
        """Takes a reply as the answer. A reply that still calls tools when no turn is left counts as no answer."""
        if self._conversation.calls(completion):
            return StopReason.MAX_TURNS
        answer = visible_text(completion).strip()
        if not answer and ended_in_thought(completion):
            raise LLMError(ONLY_REASONING)
        self._episode.record.answer = answer
        self._episode.events.emit(AnswerChanged, content=answer, ready=True)
        return StopReason.LENGTH if completion.finish_reason == "length" else StopReason.READY
