"""`llm_batch` on the host: batches of one REPL on their way to the handler, and answers on their way back.

Everything that arrives is untrusted: sizes and counts are checked before anything is kept, and what breaks the
rules is a ProtocolError, which ends that REPL. The same limits with readable messages for the model are in
`child/batch.py`. This side assembles batches, runs the handler, sends and cancels.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from rlm_env.repl.bounds import MAX_JSON, first_line
from rlm_env.repl.config import SubError
from rlm_env.repl.wire import ProtocolError, Scalar, chunks, pack, pack_any, sanitize

Handler = Callable[[list[str | dict[str, Any]]], Awaitable[list[str | SubError]]]

MAX_BATCHES = 4096
"""Batches of one REPL in flight at a time."""
NOT_RUNNING = "llm_batch can be called only while a cell runs"
STOPPED = "the cell was stopped before this batch was answered"


@dataclass
class _Incoming:
    """A batch of which not all frames have arrived."""

    total: int
    size: int = 0
    busy: bool = False
    items: list[str | dict[str, Any]] = field(default_factory=list)


class BatchHost:
    """The batches of one REPL's process."""

    def __init__(
        self,
        handler: Handler | None,
        max_items: int,
        max_bytes: int,
        send: Callable[[bytes], Coroutine[Any, Any, None]],
        on_busy: Callable[[bool], None],
    ) -> None:
        self._handler = handler
        self._max_items = max_items
        self._max_bytes = 4 * max_bytes + 2**20  # the child counts characters
        self._send = send
        self._on_busy = on_busy
        self._incoming: dict[int, _Incoming] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._replies: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._running = 0
        self._seen = 0
        self.open = False
        """A cell is running. Batches at other times are refused."""

    def receive(self, fields: list[Scalar]) -> None:
        """One frame of the child. Raises ProtocolError where it is not what the child's code sends."""
        number, total, start, items = self._check(fields)
        batch = self._incoming.get(number)
        if batch is None:
            if start or number <= self._seen:
                return  # the rest of a batch that was given up
            self._seen = number
            if not self.open:
                self._reply(number, pack("fail", number, NOT_RUNNING))
                return
            if len(self._tasks) + len(self._incoming) >= MAX_BATCHES:
                raise ProtocolError(f"more than {MAX_BATCHES} batches in flight")
            batch = self._incoming[number] = _Incoming(total)
        if start != len(batch.items) or total != batch.total or start + len(items) > total:
            raise ProtocolError("the frames of a batch do not fit together")
        size = sum(map(len, items))
        batch.size += size
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise ProtocolError("more bytes of unanswered prompts than allowed")
        batch.items += [_parse(item) if isinstance(item, bytes) else item for item in items]
        if len(batch.items) == total:
            del self._incoming[number]
            self._start(number, batch)

    def _check(self, fields: list[Scalar]) -> tuple[int, int, int, list[str | bytes]]:
        """The parts of a frame; ProtocolError where one is out of bounds."""
        if len(fields) < 4 or fields[0] != "batch":
            raise ProtocolError("not a batch frame")
        _, number, total, start, *received = fields
        if type(number) is not int or type(total) is not int or type(start) is not int:
            raise ProtocolError("not a batch frame")
        if number < 1 or not 0 < total <= self._max_items or not 0 <= start < total:
            raise ProtocolError("a batch's numbers are out of range")
        items = [item for item in received if isinstance(item, str | bytes)]
        if not items or len(items) < len(received):
            raise ProtocolError("a batch's items are not prompts")
        return number, total, start, items

    def _start(self, number: int, batch: _Incoming) -> None:
        """Begins to answer a batch of which all frames are here."""
        self._running += 1
        batch.busy = True
        if self._running == 1:
            self._on_busy(True)
        task = asyncio.get_running_loop().create_task(self._answer(number, batch))
        self._tasks[number] = task
        task.add_done_callback(lambda done: self._finished(number, batch, done))

    def _finished(self, number: int, batch: _Incoming, task: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)
        self._bytes -= batch.size
        self._idle(batch)
        if task.cancelled():
            self._reply(number, pack("fail", number, STOPPED))

    def _idle(self, batch: _Incoming) -> None:
        if batch.busy:
            batch.busy = False
            self._running -= 1
            if not self._running:
                self._on_busy(False)

    async def _answer(self, number: int, batch: _Incoming) -> None:
        """Asks the handler and sends the answers, or why there are none."""
        try:
            if self._handler is None:
                raise RuntimeError("this REPL has no sub-LLMs")
            answers = await self._handler(batch.items)
            frames = _answer_frames(number, answers, batch.total)
        except Exception as error:
            reason = first_line(f"{type(error).__name__}: {error}")
            frames = [pack("fail", number, sanitize(f"llm_batch failed: {reason}"))]
        self._idle(batch)
        for frame in frames:
            await self._send(frame)

    def _reply(self, number: int, frame: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._send(frame))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def cancel(self) -> None:
        """Gives up everything in flight; each waiting thread of the child gets an error."""
        for task in list(self._tasks.values()):
            task.cancel()
        for number, batch in self._incoming.items():
            self._bytes -= batch.size
            self._reply(number, pack("fail", number, STOPPED))
        self._incoming.clear()


def _parse(item: bytes) -> dict[str, Any]:
    """A dict prompt. The child has checked it already, so anything odd was forged."""
    if len(item) > MAX_JSON:
        raise ProtocolError(f"a prompt of {len(item)} bytes of JSON")
    try:
        value = json.loads(item, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("a prompt is not JSON") from None
    if type(value) is not dict or not (type(value.get("prompt")) is str or type(value.get("messages")) is list):
        raise ProtocolError("a prompt has neither 'prompt' nor 'messages'")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _answer_frames(number: int, answers: list[str | SubError], total: int) -> list[bytes]:
    """Answers as frames; raises where the handler returned something else."""
    if len(answers) != total:
        raise ValueError(f"the handler returned {len(answers)} answers for {total} prompts")
    items: list[str | bytes] = []
    for answer in answers:
        if isinstance(answer, SubError):
            items.append(sanitize(answer.reason).encode())
        elif isinstance(answer, str):  # msgpack takes a subclass for what it is based on
            items.append(answer)
        else:
            raise TypeError(f"the handler returned a {type(answer).__name__}; answers are str or SubError")
    return [pack_any("answer", number, start, *part) for start, part in chunks(items)]
