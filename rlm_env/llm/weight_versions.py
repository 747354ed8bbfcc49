"""Which weights sampled which tokens, where an engine gets new ones while requests are in flight.

A reply's *stretches* are `[first token, version]` pairs in order: from that index into its sampled ids on, tokens are
of that version. What the engine tells about requests in flight comes from `VLLMServer.tokens_in_flight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol
from uuid import uuid4

Stretches = list[list[int]]
"""`[first token, version]` pairs, in order of the first tokens; versions are optimizer steps."""

_VLLM_ID = re.compile(r"cmpl-([0-9a-f]{32})-(\d+)(?:-|$)")
"""What vLLM makes of a request's own id: one id for each prompt, and a suffix against repetition."""


class PromptInFlight(Protocol):
    """A prompt in flight, and what was sampled for it by earlier requests."""

    completion_ids: list[int]
    stretches: Stretches


class WeightVersions:
    """The version of the weights of one engine, and the requests that it answers."""

    def __init__(self) -> None:
        self.version: int | None = None
        """None: nobody counts versions, as in an evaluation."""
        self._in_flight: dict[str, Sequence[PromptInFlight]] = {}

    @contextmanager
    def request(self, prompts: Sequence[PromptInFlight]) -> Iterator[dict[str, str]]:
        """While the body sends a request for `prompts`: yields the fields that it needs, so that it is known again."""
        if self.version is None:
            yield {}
            return
        name = uuid4().hex
        for prompt in prompts:
            extend(prompt.stretches, len(prompt.completion_ids), self.version)
        self._in_flight[name] = prompts
        try:
            yield {"request_id": name}
        finally:
            del self._in_flight[name]

    def changed(self, version: int, tokens: Mapping[str, int] | None = None) -> int:
        """The engine has the weights `version` from now on. Returns the prompts in flight that go on under them.

        `tokens`: how many tokens each of them has by now, by vLLM's own id; only while the engine is paused, and after
        replies that were complete before have arrived, as they do before vLLM answers a pause. A prompt that is not in
        it waits for its turn and has none. With None all its tokens count as sampled by the weights before.
        """
        self.version = version
        if tokens is None:
            return 0
        known: dict[tuple[str, int], int] = {}
        for name, count in tokens.items():
            if found := _VLLM_ID.match(name):
                place = found[1], int(found[2])
                known[place] = max(count, known.get(place, 0))  # after a retry there may be two
        for name, prompts in self._in_flight.items():
            for index, prompt in enumerate(prompts):
                extend(prompt.stretches, len(prompt.completion_ids) + known.get((name, index), 0), version)
        return sum(map(len, self._in_flight.values()))


def extend(stretches: Stretches, first: int, version: int) -> None:
    """Tokens from the index `first` on are of `version`."""
    while stretches and stretches[-1][0] >= first:  # of which nothing was sampled
        stretches.pop()
    if not stretches or stretches[-1][1] != version:
        stretches.append([first, version])


def within(stretches: Stretches, tokens: int) -> Stretches:
    """The stretches of a reply of so many tokens: without one that had begun when nothing more was sampled."""
    return [stretch for stretch in stretches if stretch[0] < tokens]


def oldest(stretches: Stretches | None) -> int | None:
    """The oldest version of a reply's tokens; None where it is not known."""
    return min((version for _, version in stretches), default=None) if stretches else None
