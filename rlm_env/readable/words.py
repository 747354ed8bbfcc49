"""The facts of a rollout in words: one line about it, one about each turn and each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlm_env.readable import visible

Rollout = Any
"""A `Rollout`, which is defined above this room."""
ANSWER_CHARS = 60
LINE_CHARS = 2_000
"""A longer line of a shortened text is cut."""


def one_line(rollout: Rollout) -> str:
    """The `repr`: which rollout it is, how it ended, what it answered."""
    answer = start_of(rollout.answer, ANSWER_CHARS)
    return f"<Rollout {rollout.id or rollout.task_id!r}: {', '.join(verdict(rollout))}, answer {answer!r}>"


def verdict(rollout: Rollout) -> list[str]:
    """Score, stop reason and size, each in a few words."""
    score = "no score" if rollout.score is None else f"score {rollout.score.value:.3g}"
    parts = [score, str(rollout.stop_reason), counted(len(rollout.turns), "turn")]
    if rollout.sub_calls:
        failed = sum(call.error is not None for call in rollout.sub_calls)
        parts.append(counted(len(rollout.sub_calls), "sub-call") + (f" ({failed} failed)" if failed else ""))
    return parts


def spent(rollout: Rollout) -> list[str]:
    """Tokens and seconds, where there are any."""
    tokens = rollout.root_usage.tokens + rollout.sub_usage.tokens
    parts = [f"{tokens:,} tokens"] if tokens else []
    return parts + ([f"{rollout.timing.total:.2f} s"] if rollout.timing.total else [])


def turn_facts(turn: Any) -> list[str]:
    """What is said of a turn beside its number."""
    parts = [f"{turn.usage.prompt_tokens:,} -> {turn.usage.completion_tokens:,} tokens", f"{turn.root_seconds:.2f} s"]
    parts += [f"code {turn.code_seconds:.2f} s"] if turn.code_seconds else []
    parts += [f"sub-LLMs {turn.sub_seconds:.2f} s"] if turn.sub_seconds else []
    parts += ["timed out"] if turn.timed_out else []
    return parts + (["state lost"] if turn.state_lost else [])


def batches(rollout: Rollout, turn: int) -> list[list[Any]]:
    """The sub-calls of a turn, batch by batch."""
    found: dict[int, list[Any]] = {}
    for call in rollout.sub_calls:
        if call.root_turn == turn:
            found.setdefault(call.batch, []).append(call)
    return [found[number] for number in sorted(found)]


def batch_facts(calls: Sequence[Any]) -> str:
    """One line about a batch."""
    failed = sum(call.error is not None for call in calls)
    tokens = sum(call.usage.tokens for call in calls)
    tools = sum(len(turn.tool_results) for call in calls for turn in call.tool_turns)
    parts = [counted(len(calls), "sub-call"), *([f"{failed} failed"] if failed else [])]
    parts += [counted(tools, "tool call")] if tools else []
    return ", ".join([*parts, f"{tokens:,} tokens", f"up to {max(call.seconds for call in calls):.2f} s"])


def call_line(call: Any, width: int) -> str:
    """Prompt and answer of a sub-call in one line."""
    prompt = call.messages[-1].get("content") if call.messages else ""
    answer = call.text if call.error is None else f"({call.error})"
    return f"{start_of(prompt, width)} -> {start_of(answer, width)}"


def start_of(text: Any, chars: int) -> str:
    """The beginning of a text in one line."""
    short = " ".join(visible(str(text)[: 4 * chars]).split())
    return short if len(short) <= chars else f"{short[: chars - 1]}…"


def shortened_lines(text: str, lines: int) -> str:
    """The first and last lines of a text, with how many are left out, and the beginnings of those that are long; all
    where `lines` is 0."""
    if not lines:
        return visible(text).rstrip()
    every = text.rstrip().split("\n")
    left_out = len(every) - lines
    if left_out <= 0:
        return "\n".join(map(_cut, every))
    head = (2 * lines + 2) // 3
    tail = every[len(every) - (lines - head) :]
    return "\n".join([*map(_cut, every[:head]), f"... {left_out:,} lines ...", *map(_cut, tail)])


def _cut(line: str) -> str:
    short = visible(line[:LINE_CHARS])
    return short if len(line) <= LINE_CHARS else f"{short} ... {len(line) - LINE_CHARS:,} characters ..."


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def money(dollars: float) -> str:
    return f"${dollars:.4f}" if dollars < 1 else f"${dollars:.2f}"
