"""Extends the ids of a conversation to the next prompt, wherever a rendering of the whole conversation proves it exact.

There are two sequences: the ids so far (prompt and completion, as the engine was given and sampled them), and the ids
of the whole conversation rendered afresh. The next prompt is the ids so far plus the tail of the fresh ids if

1. the fresh ids begin with the same text as the ids so far, though it may be split differently (a sampled reply is
   rarely the canonical encoding of its own text), and
2. the cut is at a control token. A tokenizer never merges across one, so the fresh tail does not depend on how the text
   before it was split.

A renderer that rewrites history (drops earlier reasoning, trims a reply) changes the text and fails condition 1. The
caller then takes the fresh ids, which begin a new sample in training. Works for any renderer and any chat template.
"""

from __future__ import annotations

from typing import Any


class Bridge:
    """For one tokenizer (a transformers fast tokenizer)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._control = frozenset(
            index
            for index, token in tokenizer.added_tokens_decoder.items()
            if not token.lstrip and not token.rstrip  # one that strips would swallow blanks of the text beside it
        )

    def extend(self, prompt_ids: list[int], completion_ids: list[int], fresh_ids: list[int]) -> list[int] | None:
        """Ids of the next prompt, which begin with `prompt_ids + completion_ids`; None where that is not exact."""
        before = prompt_ids + completion_ids
        if fresh_ids[: len(before)] == before:
            return fresh_ids
        cut = self._cut(fresh_ids, sum(token in self._control for token in before), before[-1] in self._control)
        if cut is None or self._text(fresh_ids[:cut]) != self._text(before):
            return None
        return before + fresh_ids[cut:]

    def _cut(self, ids: list[int], controls: int, ends_with_control: bool) -> int | None:
        """The index at which the fresh ids hold as many control tokens as the ids so far: behind the last of them if
        the ids so far end with it (a finished reply), else before the next one (a reply that was cut off)."""
        positions = [i for i, token in enumerate(ids) if token in self._control]
        if ends_with_control:
            return positions[controls - 1] + 1 if len(positions) >= controls else None
        return positions[controls] if len(positions) > controls else None

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
