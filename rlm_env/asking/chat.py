"""What an OpenAI-compatible chat request asks for, and how a long one becomes a question about a context.

Not covered: the server (`serve.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rlm_env.llm.base import Sampling, ToolSchema
from rlm_env.messages import Message
from rlm_env.task import Task

LONGEST_QUESTION = 4_000
"""Characters of a last message that is taken as the question; a longer one is a part of the context."""
ENDS_SHOWN = 1_000
"""Characters of both ends of a longer last message that stand in the question: one of them says what is wanted."""
SAMPLING = ("temperature", "top_p", "seed")
"""Fields of a request that are those of `Sampling` under the same name."""
PASSED_ON = ("presence_penalty", "frequency_penalty", "response_format", "reasoning_effort", "tool_choice")
"""Further fields that only a request to the model itself can have."""
TAKEN = frozenset(
    {"model", "messages", "tools", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n"}
    | {"user", "metadata", "store", "logprobs", *SAMPLING, *PASSED_ON}
)
"""All fields of a request that are understood."""
USUAL: dict[str, tuple[Any, ...]] = {"response_format": ({"type": "text"},), "tool_choice": ("auto", "none")}
"""Values that ask for nothing special, where there are no tools; some clients send them with every request."""


class BadRequest(ValueError):
    """A request that cannot be answered. The message names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that was read."""

    model: str
    messages: list[Message]
    sampling: Sampling
    tools: list[ToolSchema] | None = None
    stream: bool = False
    stream_usage: bool = False
    only_for_models: tuple[str, ...] = field(default=())
    """Fields that it has and that an RLM cannot honor."""

    @property
    def size(self) -> int:
        """Characters of all messages."""
        return sum(len(content_text(message)) for message in self.messages)


def read_request(body: Any) -> ChatRequest:
    """The request in a JSON body. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if unknown := body.keys() - TAKEN:
        raise BadRequest(f"unknown field {min(unknown)!r}", min(unknown))
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list with at least one message", "messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(f"messages[{number}] must be an object with a role", "messages")
        content_text(message)
    if body.get("n") not in (None, 1):
        raise BadRequest("n must be 1", "n")
    if body.get("logprobs") not in (None, False):
        raise BadRequest("logprobs are not returned", "logprobs")
    if body.get("stream") not in (None, False, True):
        raise BadRequest("stream must be true or false", "stream")
    tools = body.get("tools") or None
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise BadRequest("tools must be a list of objects", "tools")
    if tools is None:
        body = {name: value for name, value in body.items() if value not in USUAL.get(name, ())}
    options = body.get("stream_options") or {}
    return ChatRequest(
        model=str(body.get("model", "")),
        messages=messages,
        sampling=_sampling(body),
        tools=tools,
        stream=bool(body.get("stream")),
        stream_usage=bool(options.get("include_usage")) if isinstance(options, dict) else False,
        only_for_models=tuple(name for name in ("tools", *PASSED_ON) if body.get(name) not in (None, [], 0)),
    )


def _sampling(body: dict[str, Any]) -> Sampling:
    values = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        values["max_tokens"] = limit
    stop = body.get("stop")
    if stop:
        if not isinstance(stop, str | list):
            raise BadRequest("stop must be a text or a list of texts", "stop")
        values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    values["extra"] = {name: body[name] for name in PASSED_ON if body.get(name) is not None}
    try:
        return Sampling.model_validate(values)
    except ValueError as error:
        raise BadRequest(f"a sampling parameter is not valid: {error}") from error


def content_text(message: Message) -> str:
    """The text of a message; several parts are put together. Raises BadRequest for a part that is no text."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadRequest("the content of a message must be text or a list of parts", "messages")
    texts = []
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise BadRequest(f"a part of type {kind!r} is no text", "messages")
        texts.append(part["text"])
    return "\n".join(texts)


def as_task(request: ChatRequest) -> Task:
    """A long request as a question about a context.

    A short last message is the question, and the messages before it are the context; a long one is in the context too,
    and the question quotes both of its ends. One message alone is a text, several are a list of role and content.
    """
    texts = [(message["role"], content_text(message)) for message in request.messages]
    last = texts[-1][1]
    if len(last) <= LONGEST_QUESTION and len(texts) > 1:
        question, held = last, texts[:-1]
    elif len(texts) == 1:
        question, held = _ends("The context is a message that", last), texts
    else:
        question, held = _ends("The context is a conversation whose last message", last), texts
    instructions = [text for role, text in held if role in ("system", "developer") and len(text) <= LONGEST_QUESTION]
    if instructions:
        question = "\n\n".join([*instructions, question])
        held = [(role, text) for role, text in held if text not in instructions]
    context = held[0][1] if len(held) == 1 else [{"role": role, "content": text} for role, text in held]
    return Task(question, context, id="chat")


def _ends(what: str, text: str) -> str:
    return (
        f"{what} asks for something, usually at its beginning or its end. Do what it asks.\n\n"
        f"It begins with:\n{json.dumps(text[:ENDS_SHOWN], ensure_ascii=False)}\n\n"
        f"It ends with:\n{json.dumps(text[-ENDS_SHOWN:], ensure_ascii=False)}"
    )
