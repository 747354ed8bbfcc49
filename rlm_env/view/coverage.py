"""Which parts of a context were ever read in a rollout: by the root LLM (printed to it), and by sub-LLMs.

Known from the references in stored prompts and observations, so a quote of fewer than 64 characters does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rlm_env.contexts import PARTS

Span = tuple[int, int]
"""[start, end) in the characters of the context."""
PIXELS = 2_000
"""Resolution of the bar of a context: reads closer together than its 1/PIXELS are drawn as one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A stretch of the context in one prompt or observation."""

    start: int
    end: int
    turn: int
    """Index of the root turn that it belongs to."""
    call: int | None
    """Id of the sub-call whose LLM read it; None for the root LLM."""


def readings(record: dict[str, Any]) -> Iterator[Reading]:
    """All references of a stored rollout. What the root was told first counts for its first turn."""
    for message in record.get("messages", ()):
        if message.get("role") == "assistant":
            break
        for start, end in spans_in(message.get("content")):
            yield Reading(start, end, 0, None)
    for index, turn in enumerate(record.get("turns", ())):
        read = [turn.get("observation"), *(message.get("content") for message in turn.get("prompt") or ())]
        read += [result.get("output") for result in turn.get("tool_results", ())]
        for start, end in (span for value in read for span in spans_in(value)):
            yield Reading(start, end, index, None)
    for call in record.get("sub_calls", ()):
        read = [message.get("content") for message in call.get("messages", ())]
        read += [one.get("output") for turn in call.get("tool_turns", ()) for one in turn.get("tool_results", ())]
        for start, end in (span for value in read for span in spans_in(value)):
            yield Reading(start, end, call["root_turn"], call["id"])


def spans_in(value: Any) -> Iterator[Span]:
    """The references in a stored text."""
    if isinstance(value, dict):
        for part in value.get(PARTS, ()):
            if isinstance(part, list):
                yield part[0], part[1]


def merged(spans: Iterable[Span], gap: int = 0) -> list[Span]:
    """The spans in order without overlap; those up to `gap` apart are one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def coverage(record: dict[str, Any]) -> dict[str, Any] | None:
    """The bars of a rollout: of the root LLM, of sub-LLMs, of each turn, and the characters that each track covers.

    None where the rollout refers to no context.
    """
    context = record.get("context")
    if context is None:
        return None
    chars = context["chars"]
    found = list(readings(record))
    tracks = {
        "root": [(one.start, one.end) for one in found if one.call is None],
        "sub": [(one.start, one.end) for one in found if one.call is not None],
    }
    by_turn: dict[int, dict[str, list[Span]]] = {}
    for one in found:
        track = by_turn.setdefault(one.turn, {"root": [], "sub": []})
        track["root" if one.call is None else "sub"].append((one.start, one.end))
    gap = chars // PIXELS
    return {
        "chars": chars,
        "read": _size(merged(tracks["root"] + tracks["sub"])),
        "tracks": {name: {"read": _size(merged(spans)), "spans": merged(spans, gap)} for name, spans in tracks.items()},
        "turns": {
            str(turn): {name: merged(spans, 4 * gap) for name, spans in by_turn[turn].items()} for turn in by_turn
        },
    }


def readers(record: dict[str, Any], start: int, end: int, most: int = 50) -> dict[str, Any]:
    """Who read the characters [start, end) of the context: the first of them, how many there are, and of each track
    the spans in there."""
    found = [one for one in readings(record) if one.start < end and start < one.end]
    tracks = {"root": [one for one in found if one.call is None], "sub": [one for one in found if one.call is not None]}
    return {
        "count": len(found),
        "sub_count": len(tracks["sub"]),
        "turns": sorted({one.turn for one in found}),
        "first": [{"turn": one.turn, "call": one.call} for one in found[:most]],
        "spans": {
            name: merged((max(one.start, start), min(one.end, end)) for one in track) for name, track in tracks.items()
        },
    }


def _size(spans: list[Span]) -> int:
    return sum(end - start for start, end in spans)
