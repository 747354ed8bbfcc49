"""`llm_batch` as the model's code sees it: the child's end of the channel to the host.

Any thread may call it, in functions and nested; the calls share one socket without a helper thread: whichever
waiting caller gets the reading lock reads for all (leader and followers). A failed item comes back as a
`FailedCall`, which no code can mistake for an answer. The host's end, which hands the prompts to the handler that the
REPL was opened with, is `host/batch_host.py`.
"""

from __future__ import annotations

import _socket
import json
import math
import os
import select
import threading
from _queue import SimpleQueue
from typing import Any, NoReturn

from rlm_env.repl.bounds import MAX_JSON
from rlm_env.repl.child.interrupts import Interrupts
from rlm_env.repl.wire import HEADER, chunks, pack_any, sanitize, unpack

# Kept under names of our own: a cell may set `os._exit = None`.
_exit, _dumps, _isfinite = os._exit, json.dumps, math.isfinite


class SubCallError(RuntimeError):
    """A failed sub-call was used as an answer, or a whole batch failed."""


class FailedCall:
    """Placeholder for a failed sub-call; falsy; printing it shows the reason."""

    is_failed_call = True
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<failed sub-call: {self.reason}>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason,)

    def _refuse(self, *_arguments: Any) -> NoReturn:
        """Raises SubCallError: a failed sub-call was used as if it were a text."""
        raise SubCallError(f"this sub-call failed, so there is no answer: {self.reason} (test it with `if answer:`)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse
    __len__ = __iter__ = __getitem__ = __contains__ = __int__ = __float__ = __index__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse


class _Call:
    """A batch in flight."""

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
        """Answers to `prompts`, in order: a str each, or a FailedCall. `_item` says what a prompt may be."""
        items = _items(prompts)
        if not items:
            return []
        if len(items) > self._max_items:
            raise ValueError(f"llm_batch takes at most {self._max_items:,} prompts at once, got {len(items):,}")
        size = sum(map(len, items))
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
                for start, part in chunks(items):
                    self._sock.sendall(pack_any("batch", number, len(items), start, *part))
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
        """Waits for all answers of a batch, interruptible; one of several callers reads for all."""
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
        """Reads one frame of the host and files its answers; a failed one becomes a FailedCall."""
        (length,) = HEADER.unpack(self._receive(HEADER.size))
        frame: list[Any] = unpack(self._receive(length))  # from our own host: the types are as agreed
        kind, number, *fields = frame
        call = self._calls.get(number)
        if call is None:
            return  # given up by an interrupt
        if kind == "answer":
            start, *items = fields
            for index, item in enumerate(items, start):
                call.answers[index] = FailedCall(item.decode()) if type(item) is bytes else item
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


def _items(prompts: Any) -> list[str | bytes]:
    """The prompts as they are sent: a str unchanged, a dict as the bytes of its JSON."""
    if isinstance(prompts, (str, bytes, dict, FailedCall)):
        raise TypeError(
            f"llm_batch takes a list of prompts, not a {type(prompts).__name__}: write llm_batch([prompt])[0]"
        )
    try:
        prompts = list(prompts)
    except TypeError:
        raise TypeError(f"llm_batch takes a list of prompts, not a {type(prompts).__name__}") from None
    return [prompt if type(prompt) is str else _item(index, prompt) for index, prompt in enumerate(prompts)]


def _item(index: int, prompt: Any) -> str | bytes:
    """One prompt as it is sent; raises TypeError or ValueError that tells the model what a prompt may be."""
    if isinstance(prompt, str):
        return str.__str__(prompt)
    if isinstance(prompt, FailedCall):
        raise SubCallError(f"prompt {index} is a failed sub-call: {prompt.reason}")
    where = f"llm_batch: prompt {index}"
    if not isinstance(prompt, dict):
        raise TypeError(
            f"{where} is a {type(prompt).__name__}; pass a str, a dict with 'prompt' or a dict with 'messages'"
        )
    if ("prompt" in prompt) == ("messages" in prompt):
        raise TypeError(f"{where}: a dict needs either 'prompt' (a str) or 'messages' (a list of dicts)")
    if "prompt" in prompt and not isinstance(prompt["prompt"], str):
        raise TypeError(f"{where}['prompt'] is a {type(prompt['prompt']).__name__}, it must be a str")
    if "messages" in prompt:
        messages = prompt["messages"]
        if not isinstance(messages, (list, tuple)) or not messages or not all(isinstance(m, dict) for m in messages):
            raise TypeError(f"{where}['messages'] must be a list of dicts with 'role' and 'content'")
    _check_json(prompt, where, 0)
    data = sanitize(_dumps(prompt, ensure_ascii=False, allow_nan=False)).encode()
    if len(data) > MAX_JSON:
        raise ValueError(f"{where} is {len(data):,} bytes of JSON; the limit for a dict is {MAX_JSON:,}")
    return data


def _check_json(value: Any, where: str, depth: int) -> None:
    """Raises TypeError for a value that JSON does not have."""
    if depth > 32:
        raise TypeError(f"{where} is nested more than 32 deep")
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if not _isfinite(value):
            raise TypeError(f"{where} is {value}, which JSON cannot say")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has a key of type {type(key).__name__}; keys must be str")
            _check_json(item, f"{where}[{key!r}]", depth + 1)
    else:
        raise TypeError(f"{where} is a {type(value).__name__}; only JSON-like values can be sent")
