"""A gate in front of an engine: requests pass while it is open, and replies unless the engine's weights are on trial.

Closing it stops new requests; whether those in flight stay where they are or are waited for is the caller's choice.
Waiting has a time limit, after which they are cut off. Replies of weights that fail their trial are dropped.
`GatedLLM` is an `LLM` behind a gate. What happens to the engine meanwhile is the business of `engine.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError, Request, Sampling, ToolSchema
from rlm_env.messages import Completion, Message

Result = TypeVar("Result")


class RequestCut(LLMError):
    """A request was still running at the end of the time for draining."""


class ReplyDropped(LLMError):
    """A reply of an engine whose weights were not verified."""


class RequestGate:
    """A gate for one event loop. Closing it while it is closed waits until it is open again."""

    def __init__(self) -> None:
        self.seconds_closed = 0.0
        """In total, including draining."""
        self.cut = 0
        """Requests that were cut off, in total."""
        self.dropped = 0
        """Replies that were dropped, in total."""
        self.trusted = True
        """False after weights that failed their trial; then no request and no reply passes."""
        self._died = False
        """The last trial failed since the engine died in it."""
        self._trial: asyncio.Event | None = None
        """Set at the end of the trial that goes on."""
        self._open = asyncio.Event()
        self._open.set()
        self._closing = asyncio.Lock()
        self._inside: set[asyncio.Future[Any]] = set()
        self._cut: dict[asyncio.Future[Any], LLMError] = {}
        """Requests that are being cut off, and what they raise."""

    @property
    def inside(self) -> int:
        """Requests in flight."""
        return len(self._inside)

    async def run(self, request: Callable[[], Awaitable[Result]]) -> Result:
        """Calls `request()` as soon as the gate is open, and returns its result. Raises RequestCut where draining took
        too long, ReplyDropped where the engine's weights failed their trial, EngineUnavailable where it died."""
        while not self._open.is_set():
            await self._open.wait()
        self._require_trust()
        task = asyncio.ensure_future(request())
        self._inside.add(task)
        task.add_done_callback(self._inside.discard)
        try:
            result = await task
            if self._trial is not None:
                await self._trial.wait()
            self._require_trust()
            return result
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task in self._cut and not (caller and caller.cancelling()):
                raise self._cut[task] from None
            raise
        finally:
            self._cut.pop(task, None)

    def abandon(self) -> None:
        """Requests in flight raise EngineUnavailable: their engine is dead, and one that hangs does not say so."""
        for task in self._inside:
            self._cut_off(task, EngineUnavailable("the engine did not answer any more"))

    @contextlib.asynccontextmanager
    async def shut(self) -> AsyncIterator[None]:
        """Lets no request in until the body has ended. Those in flight stay there."""
        async with self._closing:
            start = time.monotonic()
            self._open.clear()
            try:
                yield
            finally:
                self._open.set()
                self.seconds_closed += time.monotonic() - start

    @contextlib.asynccontextmanager
    async def closed(self, drain_seconds: float) -> AsyncIterator[float]:
        """The same with nothing in flight; yields the seconds that draining took. Requests that are still running
        after `drain_seconds` are cut off."""
        async with self.shut():
            start = time.monotonic()
            await self._drain(drain_seconds)
            yield time.monotonic() - start

    @contextlib.contextmanager
    def on_trial(self) -> Iterator[None]:
        """The body puts weights into the engine and verifies them. Replies that arrive meanwhile wait for its end;
        where it raises they are dropped, and so are all others until weights have passed a trial."""
        self._trial = trial = asyncio.Event()
        try:
            yield
            self.trusted = True
        except BaseException as error:
            self.trusted, self._died = False, isinstance(error, EngineUnavailable)
            raise
        finally:
            self._trial = None
            trial.set()

    def _require_trust(self) -> None:
        if not self.trusted:
            if self._died:  # another can be asked
                raise EngineUnavailable("the engine died before its weights were verified")
            self.dropped += 1
            raise ReplyDropped("dropped: the engine's weights were not verified")

    async def _drain(self, seconds: float) -> None:
        """Waits for requests in flight, and cuts off those that take too long."""
        if not self._inside:
            return
        _, slow = await asyncio.wait(self._inside, timeout=seconds)
        if slow:
            self.cut += len(slow)
            for task in slow:
                self._cut_off(task, RequestCut("cut off: the engine took new weights before the reply was complete"))
            await asyncio.wait(slow)

    def _cut_off(self, task: asyncio.Future[Any], error: LLMError) -> None:
        self._cut[task] = error
        task.cancel()


class GatedLLM(LLM):
    """The LLM that `current()` returns, behind a gate. It stays the same object when the LLM behind it is replaced.

    A request passes as a whole, including its continuations. `current` may raise EngineUnavailable, and then the
    request raises it. So does one that began on an LLM which is not the current one any more: at the address of a dead
    engine another may answer its retries, with other weights.
    """

    def __init__(self, gate: RequestGate, current: Callable[[], LLM], facts: LLM) -> None:
        """`facts`: an LLM with the same name, window and tokenizer, which answers questions that need no engine."""
        self._gate = gate
        self._current = current
        self._facts = facts
        self.name = facts.name
        self.context_window = facts.context_window
        self.supports_tools = facts.supports_tools
        self.concurrency = facts.concurrency

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        return await self._gate.run(lambda: self._asked(lambda llm: llm.complete(messages, tools, sampling)))

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        try:
            return await self._gate.run(lambda: self._asked(lambda llm: llm.complete_many(requests)))
        except LLMError as error:
            return [error] * len(requests)

    def count_tokens(self, messages: list[Message], tools: list[ToolSchema] | None = None) -> int | None:
        return self._facts.count_tokens(messages, tools)

    async def _asked(self, question: Callable[[LLM], Awaitable[Result]]) -> Result:
        llm = self._current()
        result = await question(llm)
        if self._current() is not llm:
            raise EngineUnavailable("the engine was started again while it was asked")
        return result

    async def describe(self) -> dict[str, Any]:
        return await self._facts.describe()
