"""`llm_batch` on the host: batches of one REPL on their way to the handler, and answers on their way back.

Everything that arrives is untrusted: sizes and counts are checked before anything is kept, and what breaks the
rules is a ProtocolError, which ends that REPL. The same limits with readable messages for the model are in
`child/batch.py`. This side runs the handler, sends and cancels; how a batch is put together is `incoming.py`'s.

A batch that fits into one frame is that frame: ("batch", number, how many prompts, 0, *prompts). Of any other the size
is announced first, so that there can be room for it (`prompt_budget.py`): ("announce", number, how many, bytes). Then
come the pieces of long texts, ("piece", number, last one of this text?, text), and "batch" frames with the prompts.
One batch arrives at a time: one that begins shows that the child has given up the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from rlm_env.repl.bounds import first_line
from rlm_env.repl.config import SubError
from rlm_env.repl.host.arrival import Arrival
from rlm_env.repl.host.incoming import IncomingBatch
from rlm_env.repl.host.prompt_budget import PromptBudget
from rlm_env.repl.wire import ProtocolError, Scalar, chunks, pack, pack_any, sanitize

Handler = Callable[[list[str | dict[str, Any]]], Awaitable[list[str | SubError]]]

MAX_BATCHES = 4096
"""Batches of one REPL in flight at a time."""
MAX_REFUSED = 4096
"""Batches that a REPL may send in vain between two cells, before it counts as a flood."""
MAX_UNREAD = 2 * MAX_BATCHES
"""Refusals that a REPL may leave unread."""
MAX_UNSENT = 16 * 2**20
"""Bytes of answers that a REPL may leave unread before nothing more is read from it."""
_LARGE = 1000
"""Answers of a batch that take a noticeable time to pack."""
_FREED = 8 * 2**20
"""Bytes of prompts that are freed at a time: half a millisecond."""
_STRAY_FRAME, _STRAY_FIELD = 32 * 2**10, 2**10
"""What a frame that serves nothing is charged, in bytes, besides its text; and each of its fields."""
_STRAY_ROOM = 2**28
"""Bytes of such frames that a REPL may send between two cells, besides twice what it may have unanswered."""
NOT_RUNNING = "llm_batch can be called only while a cell runs"
STOPPED = "the cell was stopped before this batch was answered"


class PromptChannel(Protocol):
    """The channel to the REPL, as far as batches need it (`channel.py`)."""

    @property
    def writable(self) -> bool:
        """The child reads what it is sent."""
        ...

    def write(self, frame: bytes) -> None: ...

    @property
    def behind(self) -> bool:
        """Something that the child has sent waits to be read."""
        ...

    async def send(self, frame: bytes) -> None: ...

    def hold(self, held: bool) -> None:
        """Nothing more is read while it is held."""
        ...

    def fail(self, why: str) -> None:
        """Ends the REPL, which broke the rules."""
        ...


class BatchHost:
    """The batches of one REPL's process."""

    def __init__(
        self,
        handler: Handler | None,
        max_items: int,
        max_bytes: int,
        line: PromptChannel,
        on_busy: Callable[[bool], None],
        budget: PromptBudget,
    ) -> None:
        self._handler = handler
        self._max_items = max_items
        self._max_bytes = 4 * max_bytes + 1024 * max_items  # the child counts characters
        self._line = line
        self._on_busy = on_busy
        self._budget = budget
        self._incoming: IncomingBatch | None = None
        """The batch that arrives, or waits for its room."""
        self._arrival = Arrival()
        self._look: asyncio.TimerHandle | None = None
        self._stalled = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._bytes = 0
        self._unsent = 0
        self._no_room = False
        self._packing = asyncio.Lock()
        self._busy: set[IncomingBatch] = set()
        self._told_busy = False
        self._seen = 0
        self._refused = self._unread = self._stray = 0
        """Refused batches, unread refusals, and the charge for frames that serve nothing."""
        self._open = False

    def open(self) -> None:
        """A cell begins. Batches at other times are refused."""
        self._open = True
        self._refused = self._stray = 0
        self._arrival = Arrival()

    def close(self) -> None:
        """The cell has ended. Gives up everything in flight; each waiting thread of the child gets an error."""
        self._open = False
        if self._tasks:
            for task in list(self._tasks.values()):
                task.cancel()
        self._give_up()

    def _give_up(self) -> None:
        """Forgets the batch that arrives or waits for its room, if there is one."""
        batch, self._incoming = self._incoming, None
        if batch is not None:
            self._free(batch)
            self._settle(batch)
            self._mark(batch, False)
            self._reply(pack("fail", batch.number, STOPPED))
            self._wait_for_room(False)

    def receive(self, fields: list[Scalar]) -> None:
        """One frame of the child. Raises ProtocolError where it is not what the child's code sends."""
        kind = fields[0] if fields else None
        if kind == "batch" and len(fields) > 4:
            number, total, start = fields[1:4]
            if type(number) is int and type(total) is int and type(start) is int:
                return self._take_prompts(number, total, start, fields)
        elif kind == "piece" and len(fields) == 4:
            _, number, last, text = fields
            if type(number) is int and type(last) is bool and type(text) is str:
                batch = self._incoming_batch(number)
                return self._take_stray(number, fields) if batch is None else batch.add_piece(text, last)
        elif kind == "announce" and len(fields) == 4:
            _, number, total, size = fields
            if type(number) is int and type(total) is int and type(size) is int:
                return self._claim(IncomingBatch(number, total), size) if self._is_new(number, total, fields) else None
        raise ProtocolError("not a batch frame")

    def _incoming_batch(self, number: int) -> IncomingBatch | None:
        """The batch of this number, if it is the one that arrives."""
        batch = self._incoming
        return batch if batch is not None and batch.number == number else None

    def _take_prompts(self, number: int, total: int, start: int, fields: list[Any]) -> None:
        batch, items = self._incoming_batch(number), fields[4:]
        if batch is None:
            if start:
                return self._take_stray(number, fields)
            if not self._is_new(number, total, fields):
                return None
            if len(items) != total:
                raise ProtocolError("a batch of several frames that was not announced")
            batch = IncomingBatch(number, total)
            batch.add(total, start, items)
            self._claim(batch, batch.size)
        else:
            batch.add(total, start, items)
        if batch.complete and batch.claim is not None and batch.claim.granted:
            self._start(batch)
        return None

    def _is_new(self, number: int, total: int, fields: list[Scalar]) -> bool:
        """A batch begins with this frame. False where it is refused. ProtocolError where its numbers are impossible."""
        if number < 1 or not 0 < total <= self._max_items:
            raise ProtocolError("a batch's numbers are out of range")
        if number <= self._seen:
            self._take_stray(number, fields)
            return False
        self._seen = number
        if not self._open:
            self._refuse()
            self._take_stray(number, fields)
            self._reply(pack("fail", number, NOT_RUNNING))
            return False
        if self._incoming is not None:
            self._refuse()
            self._give_up()
        if len(self._tasks) >= MAX_BATCHES:
            raise ProtocolError(f"more than {MAX_BATCHES} batches in flight")
        return True

    def _refuse(self) -> None:
        """Counts a batch that was sent in vain."""
        self._refused += 1
        if self._refused > MAX_REFUSED:
            raise ProtocolError(f"a flood of more than {MAX_REFUSED} batches in vain")

    def _take_stray(self, number: int, fields: list[Scalar]) -> None:
        """A frame of a batch that was given up or refused. It has cost its decoding."""
        text = sum(len(field) for field in fields if isinstance(field, (str, bytes)))
        self._stray += _STRAY_FRAME + _STRAY_FIELD * len(fields) + 4 * text
        if not 1 <= number <= self._seen or self._stray > 2 * self._max_bytes + _STRAY_ROOM:
            raise ProtocolError("frames of batches that do not exist")

    def _claim(self, batch: IncomingBatch, size: int) -> None:
        """Asks for the batch's room; until it is granted, the REPL waits, which costs it nothing."""
        if not batch.size <= size or self._bytes + size > self._max_bytes:
            raise ProtocolError("more bytes of unanswered prompts than allowed")
        self._bytes += size
        self._incoming = batch

        def granted() -> None:
            self._wait_for_room(False)
            if batch.complete:
                self._start(batch)
            else:
                self._watch_arrival(batch)

        batch.claim = self._budget.claim(size, granted)
        if not batch.claim.granted:
            self._mark(batch, True)
            self._wait_for_room(True)
        elif not batch.complete:
            self._watch_arrival(batch)

    def _wait_for_room(self, waiting: bool) -> None:
        """Notes that a batch waits for its room, or none does."""
        self._no_room = waiting
        self._hold()

    def _hold(self) -> None:
        """Reads on, unless a batch waits for its room or the REPL does not read its answers."""
        self._line.hold(self._no_room or self._unsent > MAX_UNSENT)

    def _watch_arrival(self, batch: IncomingBatch) -> None:
        """While frames of a batch arrive, its REPL waits for the host; where too few come, the host waits for the REPL,
        whatever else that waits for."""
        self._arrival.begin()
        self._mark(batch, True)
        self._look_later(batch)

    def _look_later(self, batch: IncomingBatch) -> None:
        self._stalled = self._arrival.stalled
        self._tell()
        self._look = asyncio.get_running_loop().call_later(self._arrival.next_look, self._look_at, batch)

    def _look_at(self, batch: IncomingBatch) -> None:
        self._arrival.look(batch.size, self._line.behind)
        self._look_later(batch)

    def _settle(self, batch: IncomingBatch) -> None:
        """A batch does not arrive any more."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
            self._arrival.look(batch.size)
            self._stalled = False

    def _free(self, batch: IncomingBatch) -> None:
        """Gives back the batch's room."""
        claim, batch.claim = batch.claim, None
        if claim is not None:
            self._bytes -= claim.size
            claim.give_back()

    def _start(self, batch: IncomingBatch) -> None:
        self._incoming = None
        self._settle(batch)
        self._mark(batch, True)
        number = batch.number
        task = asyncio.get_running_loop().create_task(self._answer(number, batch))
        self._tasks[number] = task
        task.add_done_callback(lambda done: self._finished(number, batch, done))

    def _finished(self, number: int, batch: IncomingBatch, task: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)
        self._free(batch)
        self._mark(batch, False)
        if task.cancelled():
            self._reply(pack("fail", number, STOPPED))

    def _mark(self, batch: IncomingBatch, busy: bool) -> None:
        """Notes whether the REPL waits for this batch."""
        if busy:
            self._busy.add(batch)
        else:
            self._busy.discard(batch)
        self._tell()

    def _tell(self) -> None:
        """Tells when the REPL begins to wait for the host, and when it does not any more."""
        busy = bool(self._busy) and not self._stalled
        if busy is not self._told_busy:
            self._told_busy = busy
            self._on_busy(busy)

    async def _answer(self, number: int, batch: IncomingBatch) -> None:
        try:
            if self._handler is None:
                raise RuntimeError("this REPL has no sub-LLMs")
            answers = await self._handler(batch.items)
            if batch.size > _FREED:
                await _let_go(batch)
            batch.items = []
            frames = await self._pack(number, answers, batch.total)
        except Exception as error:
            reason = first_line(f"{type(error).__name__}: {error}")
            frames = [pack("fail", number, sanitize(f"llm_batch failed: {reason}"))]
        self._free(batch)
        unsent = sum(map(len, frames))
        self._unsent += unsent
        try:
            self._hold()
            for frame in frames:
                if frame is frames[-1] or not self._line.writable:
                    self._mark(batch, False)  # what it still waits for, it has not read
                await self._line.send(frame)
                unsent -= len(frame)
                self._unsent -= len(frame)
        finally:
            self._unsent -= unsent
            self._hold()

    async def _pack(self, number: int, answers: list[str | SubError], total: int) -> list[bytes]:
        """The frames of a batch's answers. Of many large batches, others have their turn between two."""
        if total < _LARGE:
            return _answer_frames(number, answers, total)
        async with self._packing:
            await asyncio.sleep(0)
            return _answer_frames(number, answers, total)

    def _reply(self, frame: bytes) -> None:
        """A refusal. It is written at once, and a REPL that reads none of them does not get them for ever."""
        self._unread = 0 if self._line.writable else self._unread + 1
        if self._unread > MAX_UNREAD:
            self._line.fail(f"left more than {MAX_UNREAD} refused batches unread")
        else:
            self._line.write(frame)


async def _let_go(batch: IncomingBatch) -> None:
    """Drops the prompts of a large batch. Others have their turn in between."""
    items, batch.items = list(batch.items), []  # the list itself may be the handler's by now
    some = len(items) * _FREED // batch.size or 1
    while len(items) > some:
        del items[-some:]
        await asyncio.sleep(0)


def _answer_frames(number: int, answers: list[str | SubError], total: int) -> list[bytes]:
    if len(answers) != total:
        raise ValueError(f"the handler returned {len(answers)} answers for {total} prompts")
    items: list[Any] = answers if set(map(type, answers)) == {str} else list(map(_item, answers))
    return [pack_any("answer", number, start, *part) for start, part in chunks(items)]


def _item(answer: str | SubError) -> str | bytes:
    """An answer as it is sent."""
    if isinstance(answer, SubError):
        return sanitize(answer.reason).encode()
    if isinstance(answer, str):
        return str.__str__(answer)
    raise TypeError(f"the handler returned a {type(answer).__name__}; answers are str or SubError")
