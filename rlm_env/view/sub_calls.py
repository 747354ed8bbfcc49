"""The sub-calls of a stored rollout: their batches, the lists of a batch, and single calls in blocks.

A batch may have 20,000 calls. Its list has the beginnings of prompts and answers only; what a call was asked and what
it answered comes in blocks of `BLOCK` calls.
"""

from __future__ import annotations

from typing import Any

from rlm_env.view.replies import shown_reply, shown_tools
from rlm_env.view.texts import Texts

BLOCK = 32
START_CHARS = 120
COMPARED = 600
"""Characters of prompts that are compared, so that a list shows where they differ."""
CALL_QUOTE_CHARS = 2_000
"""Characters of a quote of the context in the prompt of a sub-call that are sent at once."""


def batches_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The batches in order: the turn that made each, and sums over its calls."""
    found: dict[int, dict[str, Any]] = {}
    for call in record["sub_calls"]:
        batch = found.setdefault(
            call["batch"],
            {"batch": call["batch"], "turn": call["root_turn"], "calls": 0, "failed": 0, "tools": 0, "seconds": 0.0}
            | {"prompt_tokens": 0, "completion_tokens": 0},
        )
        batch["calls"] += 1
        batch["failed"] += call["error"] is not None
        batch["tools"] += sum(len(turn["tool_results"]) for turn in call["tool_turns"])
        batch["seconds"] = max(batch["seconds"], call["seconds"])
        batch["prompt_tokens"] += call["usage"]["prompt_tokens"]
        batch["completion_tokens"] += call["usage"]["completion_tokens"]
    return [found[number] for number in sorted(found)]


def call_list(record: dict[str, Any], batch: int, texts: Texts) -> list[list[Any]]:
    """One line per call of a batch: [id, start of the prompt, start of the answer, error, prompt tokens, completion
    tokens, tool calls, seconds]. What all prompts begin with is left out."""
    calls = _of_batch(record, batch)
    prompts = [texts.start(call["messages"][-1].get("content") if call["messages"] else "", COMPARED) for call in calls]
    skipped = _shared(prompts)
    return [
        [
            call["id"],
            f"… {prompt[skipped : skipped + START_CHARS]}" if skipped else prompt[:START_CHARS],
            texts.start(call["text"], START_CHARS),
            None if call["error"] is None else texts.start(call["error"], START_CHARS),
            call["usage"]["prompt_tokens"],
            call["usage"]["completion_tokens"],
            sum(len(turn["tool_results"]) for turn in call["tool_turns"]),
            round(call["seconds"], 3),
        ]
        for call, prompt in zip(calls, prompts, strict=True)
    ]


def _shared(prompts: list[str]) -> int:
    """Characters that all of several prompts begin with, in whole words; 0 where that is little."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # between them are all others
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    length = first.rfind(" ", 0, same) + 1
    return length if length > 24 and any(len(prompt) > length for prompt in prompts) else 0


def call_block(record: dict[str, Any], batch: int, block: int, texts: Texts) -> list[dict[str, Any]]:
    """Calls `block * BLOCK` up to the next block of a batch, whole."""
    return [_call(call, texts) for call in _of_batch(record, batch)[block * BLOCK : (block + 1) * BLOCK]]


def _of_batch(record: dict[str, Any], batch: int) -> list[dict[str, Any]]:
    return [call for call in record["sub_calls"] if call["batch"] == batch]


def _call(call: dict[str, Any], texts: Texts) -> dict[str, Any]:
    return {
        "id": call["id"],
        "turn": call["root_turn"],
        "messages": [
            {"role": message.get("role", ""), "content": texts.pieces(message.get("content"))}
            for message in call["messages"]
        ],
        "replies": [
            {
                **shown_reply(turn["text"], turn["reasoning"], []),
                "tools": shown_tools(turn, texts),
                "usage": turn["usage"],
            }
            for turn in call["tool_turns"]
        ],
        "answer": shown_reply(call["text"], call["reasoning"], []),
        "error": call["error"],
        "finish_reason": call["finish_reason"],
        "usage": call["usage"],
        "seconds": call["seconds"],
    }
