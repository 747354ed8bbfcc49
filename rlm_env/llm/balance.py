"""Several engines that answer as one `LLM`: each request goes to the least loaded of those that are up.

A conversation stays with the engine that has its beginning in the prefix cache, unless that one is busier than others
by more than `SLACK` and `SHARE`. A request whose engine dies is asked of another, as is one that an endpoint of others
could not answer for now; such an endpoint is spared for a while (`seat.py`). Whether an engine is up again is decided
by whoever owns it (for training `rlm_env/train/sync/fleet.py`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError, Request, Sampling, ToolSchema
from rlm_env.llm.http import EndpointError, NoReply
from rlm_env.llm.seat import Seat
from rlm_env.messages import Completion, Message

SLACK = 4
"""Prompts that the engine with the cached prefix may have in flight beyond the least loaded one."""
SHARE = 0.25
"""The same as a share of what the least loaded one has in flight."""
REMEMBERED = 20_000
"""Prompts whose engine is remembered, the latest ones."""
LOOK_BACK = 8
"""Messages by which a conversation may have grown and still be recognized."""


class BalancedLLM(LLM):
    """The LLM of a role that several engines answer.

    `seats`: the engines, which other roles may share; all have the same model, or ones that answer alike. `lost`:
    called with an engine that was found dead, and why; it is to set `up` to False, and to True when it is back.
    `rests`: called with one that begins to rest, and why, and with one that has answered again, and None.
    Requests raise EngineUnavailable while none is up.
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        lost: Callable[[Seat, EngineUnavailable], None],
        rests: Callable[[Seat, LLMError | None], None] = lambda *_: None,
    ) -> None:
        if not seats:
            raise ValueError("no engine")
        self.seats = list(seats)
        self._lost = lost
        self._rests = rests
        self._places: OrderedDict[int, Seat] = OrderedDict()
        first = seats[0].llm
        self.name = first.name
        windows = [seat.llm.context_window for seat in seats]
        known = [window for window in windows if window is not None]
        self.context_window = min(known) if len(known) == len(windows) else None
        self.concurrency = sum(seat.llm.concurrency for seat in seats)
        self.supports_tools = all(seat.llm.supports_tools for seat in seats)

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        request, failed = Request(messages, tools, sampling), set[Seat]()
        while True:
            (seat,) = self._choose([(request, failed)])
            try:
                completion = await seat.llm.complete(messages, tools, sampling)
            except LLMError as error:
                if not await self._another_is_asked(seat, error, failed):
                    raise
            else:
                self._answered(request, seat)
                return completion
            finally:
                self._release(seat, 1)

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        """Answers a batch, each part of it on one engine. What an engine leaves unanswered by its death, or cannot
        answer for now, goes to the others."""
        results: list[Completion | LLMError] = [LLMError("not asked")] * len(requests)
        failed = [set[Seat]() for _ in requests]
        open_places = list(range(len(requests)))
        while open_places:
            try:
                seats = self._choose([(requests[place], failed[place]) for place in open_places])
            except EngineUnavailable as error:
                for place in open_places:
                    results[place] = error
                break
            parts: dict[Seat, list[int]] = {}
            for place, seat in zip(open_places, seats, strict=True):
                parts.setdefault(seat, []).append(place)
            left = await asyncio.gather(*(self._part(seat, parts[seat], requests, results, failed) for seat in parts))
            open_places = sorted(place for places in left for place in places)
        return results

    def count_tokens(self, messages: list[Message], tools: list[ToolSchema] | None = None) -> int | None:
        return self.seats[0].llm.count_tokens(messages, tools)

    @property
    def adaptations(self) -> list[str]:
        return list(dict.fromkeys(text for seat in self.seats for text in seat.llm.adaptations))

    async def describe(self) -> dict[str, Any]:
        described = [await seat.llm.describe() for seat in self.seats]
        return described[0] if len(described) == 1 else {**described[0], "engines": len(described)}

    async def _part(
        self,
        seat: Seat,
        places: Sequence[int],
        requests: Sequence[Request],
        results: list[Completion | LLMError],
        failed: Sequence[set[Seat]],
    ) -> list[int]:
        """Asks one engine for its part of a batch; returns the places that another is to be asked for."""
        try:
            answers = await seat.llm.complete_many([requests[place] for place in places])
        finally:
            self._release(seat, len(places))
        left = []
        for place, answer in zip(places, answers, strict=True):
            results[place] = answer
            if isinstance(answer, Completion):
                self._answered(requests[place], seat)
            elif await self._another_is_asked(seat, answer, failed[place]):
                left.append(place)
        return left

    def _choose(self, asked: Iterable[tuple[Request, set[Seat]]]) -> list[Seat]:
        """An engine for each request, which counts as in flight there from now on: if possible none of those that have
        failed in it, and none that rests. Raises EngineUnavailable."""
        up = [seat for seat in self.seats if seat.up]
        if not up:
            raise EngineUnavailable("; ".join(dict.fromkeys(str(seat.error) for seat in self.seats)))
        now = asyncio.get_running_loop().time()
        chosen = []
        for request, failed in asked:
            unfailed = [seat for seat in up if seat not in failed] or up
            able = [seat for seat in unfailed if seat.may_be_asked(now)] or unfailed
            best = min(able, key=lambda seat: seat.load)
            cached = self._with_prefix(request) if len(able) > 1 else None
            if cached is not None and cached in able and cached.load <= best.load * (1 + SHARE) + SLACK:
                best = cached
            best.load += 1
            chosen.append(best)
        return chosen

    def _release(self, seat: Seat, prompts: int) -> None:
        """So many prompts are not in flight any more."""
        seat.load -= prompts
        self.supports_tools = all(seat.llm.supports_tools for seat in self.seats)  # an endpoint may have refused them

    async def _found_dead(self, seat: Seat, error: LLMError) -> bool:
        """Whether an error is that of a dead engine. What it left unanswered can be asked of another."""
        if not isinstance(error, EngineUnavailable):
            if not (isinstance(error, NoReply) or (isinstance(error, EndpointError) and error.status >= 500)):
                return False
            if seat.up and (seat.healthy is None or await seat.healthy()):
                return False
            error = EngineUnavailable(str(error))
        if seat.up:  # else everybody knows already
            seat.up, seat.error = False, error
            self._lost(seat, error)
        return True

    async def _another_is_asked(self, seat: Seat, error: LLMError, failed: set[Seat]) -> bool:
        """Whether a request that an engine left unanswered goes to another. `failed`: those that cannot answer it for
        now, as this one if it is an endpoint of others with an error that may pass."""
        if await self._found_dead(seat, error):
            return True
        others = [other for other in self.seats if other.up and other is not seat]
        if not others or not seat.lets_down(error):
            return False
        failed.add(seat)
        if seat.rest(error, asyncio.get_running_loop().time()):
            self._rests(seat, error)
        return any(other not in failed for other in others)

    def _answered(self, request: Request, seat: Seat) -> None:
        """The engine has computed this prompt."""
        if seat.answered(asyncio.get_running_loop().time()):
            self._rests(seat, None)
        if len(self.seats) > 1:
            self._places[_beginnings(request)[-1]] = seat
            while len(self._places) > REMEMBERED:
                self._places.popitem(last=False)

    def _with_prefix(self, request: Request) -> Seat | None:
        """The engine that has answered the longest beginning of this conversation."""
        keys = reversed(_beginnings(request)[-LOOK_BACK:])
        return next((self._places[key] for key in keys if key in self._places), None)


def _beginnings(request: Request) -> list[int]:
    """A key for each beginning of the conversation: its first message, its first two, and so on."""
    key, keys = hash(repr(request.tools) if request.tools else ""), []
    for message in request.messages:
        content = message.get("content")
        key = hash((key, message.get("role"), content if isinstance(content, str) else repr(content)))
        keys.append(key)
    return keys or [key]
