"""Control tokens in the text of messages stay text: a page or an observation cannot end a turn and begin another.

A template or renderer gets messages in which a mark breaks up each name of a control token; the names that are whole in
the rendered text are its own. That text is encoded by a copy of the tokenizer that knows its control tokens under
secret names. Text without such names is encoded by the tokenizer itself, so its ids are what they always were.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from rlm_env.messages import AssistantMessage, Message

_BRACKETED = re.compile(r"[<\[{(◁＜《].*[>\]})▷＞》]", re.DOTALL)
_HTML = re.compile(
    r"</?(?:table|caption|t(?:head|body|foot|r|h|d)|h[1-6]|blockquote|[oud]l|li|br|strong|em|[biusap]|su[bp]|code|pre|div|"
    r"span|img|hr)/?>"
)


class LiteralText:
    """For one tokenizer (a transformers fast tokenizer)."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        nonce = secrets.token_hex(8)
        self._mark = f"\ufdd2{nonce}\ufdd2"
        self._ids = {
            token.content: index for index, token in tokenizer.added_tokens_decoder.items() if _is_control(token)
        }
        self._names = {index: name for name, index in self._ids.items()}
        self._secret = {name: f"\ufdd1{nonce}{index}\ufdd1" for name, index in self._ids.items()}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def marked(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with a mark in each name of a control token. In a sampled reply, names stay unmarked where the
        model sampled the control token itself."""
        return [self._marked_message(message) for message in messages]

    def is_marked(self, text: str) -> bool:
        """True for text that must go through `encode`."""
        return self._mark in text

    def encode(self, text: str) -> list[int]:
        """The ids of marked text: names without a mark become control tokens, marked ones are text."""
        return self.encoding(text).ids

    def encoding(self, text: str) -> Any:
        """The same as an `Encoding`. Its offsets are those of the text without marks, with secret names."""
        text = self._control.sub(lambda match: self._secret[match[0]], text).replace(self._mark, "")
        return self._guarded.encode(text, add_special_tokens=False)

    def _marked_message(self, message: Message) -> Message:
        sampled: frozenset[str] = frozenset()
        if isinstance(message, AssistantMessage):
            ids = message.completion.completion_ids or ()
            sampled = frozenset(self._names[index] for index in ids if index in self._names)
        values = {name: self._marked_value(value, sampled) for name, value in message.items() if name != "role"}
        changed = any(values[name] is not message[name] for name in values)
        return {**message, **values} if changed else message

    def _marked_value(self, value: Any, sampled: frozenset[str]) -> Any:
        if isinstance(value, str):
            return self._marked_text(value, sampled) if self._control.search(value) else value
        if isinstance(value, list):
            items = [self._marked_value(item, sampled) for item in value]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        if isinstance(value, dict):
            found = {self._marked_value(key, sampled): self._marked_value(item, sampled) for key, item in value.items()}
            same = all(a is b and found[a] is value[b] for a, b in zip(found, value, strict=False))
            return value if same and len(found) == len(value) else found
        return value

    def _marked_text(self, text: str, sampled: frozenset[str]) -> str:
        while True:  # a name can hold another one
            marked = self._control.sub(
                lambda match: match[0] if match[0] in sampled else match[0][0] + self._mark + match[0][1:], text
            )
            if marked == text:
                return text
            text = marked

    @functools.cached_property
    def _guarded(self) -> Any:
        """The tokenizer with control tokens of secret names and the same ids."""
        from tokenizers import Tokenizer

        state = json.loads(self._backend.to_str())
        for token in state["added_tokens"]:
            token["content"] = self._secret.get(token["content"], token["content"])
        model = state["model"]
        vocab = model.get("vocab")
        if isinstance(vocab, dict):
            model["vocab"] = {self._secret.get(piece, piece): index for piece, index in vocab.items()}
        elif isinstance(vocab, list):
            model["vocab"] = [[self._secret.get(piece, piece), score] for piece, score in vocab]
        if model.get("unk_token") in self._secret:
            model["unk_token"] = self._secret[model["unk_token"]]
        guarded = Tokenizer.from_str(json.dumps(state))
        for name, index in self._ids.items():
            if guarded.token_to_id(self._secret[name]) != index:
                raise ValueError(f"the tokenizer's control token {name!r} cannot be kept apart from text")
        return guarded


def _is_control(token: Any) -> bool:
    """Special tokens, and those that only look like markup (`<think>`); not runs of blanks, HTML or words, which some
    vocabularies hold as added tokens too."""
    name = token.content
    if len(name) < 2 or not name.strip():
        return False
    return bool(token.special or (_BRACKETED.fullmatch(name) and not _HTML.fullmatch(name)))
