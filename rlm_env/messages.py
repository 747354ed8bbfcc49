"""The words between an engine and everybody else: messages, completions, what they used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One chat message in the OpenAI shape: `role`, `content`, and where they occur `reasoning_content`,
`tool_calls`, `tool_call_id`, `name`."""


@dataclass(slots=True)
class Usage:
    """Tokens and calls of one side (root or sub) of a rollout, as counted by the engine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the engine answered from its prefix cache; part of `prompt_tokens`."""
    calls: int = 0

    def __iadd__(self, other: Usage) -> Usage:
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cached_tokens += other.cached_tokens
        self.calls += other.calls
        return self


class AssistantMessage(dict):
    """A chat message that remembers the completion it came from.

    A token-in/token-out engine that finds one at the end of the history extends its exact token ids instead of
    encoding the history again. A scaffold that edits the history makes plain dicts, and so honestly loses this.
    """

    completion: Completion


@dataclass(slots=True)
class Completion:
    """What an engine returned for one request.

    `prompt_ids`, `completion_ids` (shape [completion]) and `logprobs` (same shape; natural log, of the sampled tokens,
    after temperature) are None where the endpoint does not tell them.
    `tool_calls` are in the OpenAI shape; `arguments` is the model's own text, not necessarily valid JSON.
    """

    text: str
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    reasoning: str | None = None
    finish_reason: str | None = None
    prompt_ids: list[int] | None = None
    completion_ids: list[int] | None = None
    logprobs: list[float] | None = None
    usage: Usage = field(default_factory=Usage)
    history_key: str | None = None
    """An engine's fingerprint of the messages and tools that `prompt_ids` stands for: a history that was edited
    since has another one, and then the ids are not extended."""

    def message(self) -> AssistantMessage:
        """This completion as the assistant message of the next turn's history."""
        message = AssistantMessage(role="assistant", content=self.text)
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        message.completion = self
        return message
