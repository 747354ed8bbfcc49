"""Stored rollouts without their prompts and tokens: all that numbers need, at a fraction of what a whole one takes.

No context is opened. Not covered: whole rollouts (`rlm_env/rollout.py`).
"""

from __future__ import annotations

import json
from typing import Any

from rlm_env.rollout import RecordError, Rollout

TOKENS: dict[str, Any] = {"prompt_ids": None, "completion_ids": None, "logprobs": None}


def outline(line: str | bytes, *, tokens: bool = False) -> Rollout:
    """The rollout in a line of rollouts.jsonl without prompts and observations, and without token ids and
    log-probabilities unless `tokens` asks for them. Raises RecordError."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a line of JSON ({error})") from error
    return outline_of(record, tokens=tokens)


def outline_of(record: Any, *, tokens: bool = False) -> Rollout:
    """The same of a record that was read as JSON, which stays as it is. Raises RecordError."""
    if not isinstance(record, dict):
        return Rollout.from_dict(record)
    left = {name: value for name, value in record.items() if name not in ("messages", "context", "texts")}
    try:
        left["turns"] = [_bare(turn, tokens) | {"observation": "", "prompt": []} for turn in record.get("turns", ())]
        left["sub_calls"] = [
            _bare(call, tokens)
            | {"messages": [], "tool_turns": [_bare(turn, tokens) for turn in call.get("tool_turns", ())]}
            for call in record.get("sub_calls", ())
        ]
    except (TypeError, AttributeError, LookupError) as error:
        raise RecordError(f"damaged rollout ({type(error).__name__}: {error})") from error
    return Rollout.from_dict(left)


def _bare(reply: dict[str, Any], tokens: bool) -> dict[str, Any]:
    if tokens:
        return dict(reply)
    return {name: value for name, value in reply.items() if name != "prompt_prefix"} | TOKENS
