"""The types that everybody exchanges with an engine: messages, completions, token usage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One chat message in the OpenAI shape: `role`, `content`, and where they occur `reasoning_content`,
`tool_calls`, `tool_call_id`, `name`."""


@dataclass(slots=True)
class Usage:
    """Tokens and calls, as counted by the engine: of one reply, or of one side (root or sub) of a rollout."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were in the engine's prefix cache; part of `prompt_tokens`."""
    calls: int = 0

    @property
    def tokens(self) -> int:
        """Of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def untold(self) -> bool:
        """The engine was called and told no tokens: they are unknown and not 0, for no prompt is empty."""
        return self.calls > 0 and self.prompt_tokens == 0

    def __iadd__(self, other: Usage) -> Usage:
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cached_tokens += other.cached_tokens
        self.calls += other.calls
        return self


UNREADABLE_CALL = "tool_use_failed"
"""Finish reason of a reply whose tool call the endpoint itself could not read. Its text is what the model wrote."""


class AssistantMessage(dict):
    """A chat message that also holds the completion it came from. It compares equal to the plain dict.

    A token-in/token-out engine that finds one at the end of the history extends its exact token ids instead of
    encoding the history again. A scaffold that edits a message makes a plain dict, so edited text is always encoded.
    """

    completion: Completion


@dataclass(slots=True)
class Completion:
    """An engine's reply to one request.

    `prompt_ids`, `completion_ids` (shape [completion]) and `logprobs` (same shape; natural log, of the sampled tokens,
    after temperature) are None if the endpoint does not return them.
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
    weight_versions: list[list[int]] | None = None
    """Which weights of a training run sampled `completion_ids`: `[first token, version]` pairs, of which there are
    several where the engine got new weights meanwhile; None where nobody counts versions."""
    history_key: str | None = None
    """An engine's fingerprint of the messages and tools that `prompt_ids` encodes. A history that was edited since has
    another one, and then the ids are not extended."""
    returned_fields: dict[str, Any] = field(default_factory=dict)
    """Fields of its own that the endpoint put into the message, such as signatures of its reasoning, which it may want
    back. Not part of the record."""

    def message(self) -> AssistantMessage:
        """This completion as an assistant message for the next turn's history."""
        message = AssistantMessage(role="assistant", content=self.text)
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        message.completion = self
        return message
