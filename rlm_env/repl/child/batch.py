"""`llm_batch` as the model's code sees it: the child's end of the channel to the host.

Any thread may call it, in functions and nested; the calls share one socket without a helper thread: whichever
waiting caller gets the reading lock reads for all (leader and followers). A failed item comes back as a
`FailedCall`, which no code can mistake for an answer. What a prompt may be: `prompt_items.py`. The host's end, which
hands the prompts to the handler that the REPL was opened with, is `host/batch_host.py`.
"""

from __future__ import annotations

import _socket
import os
import select
import threading
from _queue import SimpleQueue
from typing import Any

from rlm_env.repl.child.interrupts import Interrupts
from rlm_env.repl.child.prompt_items import FailedCall, SubCallError, frames_of, items_of, size_of
from rlm_env.repl.wire import HEADER, unpack_likely

# Kept under a name of our own: a cell may set `os._exit = None`.
_exit = os._exit


class _Call:
    __slots__ = ("answers", "failure", "missing", "wakeups")

    def __init__(self, count: int) -> None:
        self.answers: list[Any] = [None] * count
        self.missing = count
        self.failure: str | None = None
        self.wakeups: SimpleQueue[None] = SimpleQueue()

    @property
    def done(self) -> bool:
        return self.missing == 0 or self.failure is not None


class BatchClient:
    """The child's end of the llm channel. `call` is `llm_batch` in the namespace."""

    def __init__(self, sock: _socket.socket, interrupts: Interrupts, max_items: int, max_bytes: int) -> None:
        self._sock = sock
        self._interrupts = interrupts
        self._max_items, self._max_bytes = max_items, max_bytes
        self._calls: dict[int, _Call] = {}
        self._next_id = 0
        self._sending = threading.Lock()
        self._reading = threading.Lock()
        self._poll = select.poll
        self._in_flight = 0

    def call(self, prompts: Any) -> list[Any]:
        """Answers to `prompts`, in order: a str each, or a FailedCall."""
        items = items_of(prompts)
        if not items:
            return []
        if len(items) > self._max_items:
            raise ValueError(f"llm_batch takes at most {self._max_items:,} prompts at once, got {len(items):,}")
        size = size_of(items)
        if size + self._in_flight > self._max_bytes:
            raise ValueError(
                f"llm_batch: {size:,} characters of prompts (and {self._in_flight:,} still unanswered) are over the "
                f"limit of {self._max_bytes:,}; send less at once"
            )
        before = self._interrupts.shield()
        call, number = _Call(len(items)), None
        try:
            with self._sending:
                self._next_id = number = self._next_id + 1
                self._calls[number] = call
                self._in_flight += size
                for frame in frames_of(number, items, size):
                    self._sock.sendall(frame)
            self._wait(call, before)
        finally:
            if number is not None:
                with self._sending:
                    del self._calls[number]
                    self._in_flight -= size
            self._offer_reading()
            self._interrupts.unshield(before)
        if call.failure is not None:
            raise SubCallError(call.failure)
        return call.answers

    def _wait(self, call: _Call, before: bool) -> None:
        interrupts = self._interrupts
        poll = self._poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        while not call.done:
            if self._reading.acquire(blocking=False):
                try:
                    while not call.done:
                        interrupts.open(before)
                        poll.poll()
                        interrupts.close(before)
                        self._read_frame()
                finally:
                    interrupts.close(before)
                    self._reading.release()
            else:
                interrupts.open(before)
                call.wakeups.get()
                interrupts.close(before)

    def _offer_reading(self) -> None:
        """Wakes one waiting caller, which then reads for all."""
        for call in list(self._calls.values()):
            if not call.done:
                call.wakeups.put(None)
                return

    def _read_frame(self) -> None:
        (length,) = HEADER.unpack(self._receive(HEADER.size))
        frame: list[Any] = unpack_likely(4, self._receive(length))  # from our own host: the types are as agreed
        kind, number, *fields = frame
        call = self._calls.get(number)
        if call is None:
            return  # given up by an interrupt
        if kind == "answer":
            start, *items = fields
            if bytes in set(map(type, items)):
                items = [FailedCall(item.decode()) if type(item) is bytes else item for item in items]
            call.answers[start : start + len(items)] = items
            call.missing -= len(items)
        else:
            call.failure = fields[0]
        if call.done:
            call.wakeups.put(None)

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            count = self._sock.recv_into(view[filled:])
            if not count:
                _exit(0)  # the host is gone
            filled += count
        return data
