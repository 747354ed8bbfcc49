"""One REPL's process as the host holds it: two sockets, a pidfd, and what is known of its end.

Covered: opening, the two channels and their hostile input, signals, noticing death at once. Not covered: steps and
their clocks (`repl.py`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable

from rlm_env.repl.config import ReplConfig, ReplError
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host.batch_host import BatchHost, Handler
from rlm_env.repl.host.zygote_client import Child, Zygote
from rlm_env.repl.wire import HEADER, FrameParser, ProtocolError, Scalar, pack, unpack

_EXIT_NOTICE = 1.0


class _Channel(asyncio.BufferedProtocol):
    """One socket to a child. Writes obey back-pressure; a protocol error closes it."""

    def __init__(self, on_frame: Callable[[list[Scalar]], None], on_lost: Callable[[str], None], limit: int) -> None:
        self._parser = FrameParser(on_frame, limit)
        self.get_buffer = self._parser.get_buffer
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._parser.buffer_updated(nbytes)
        except ProtocolError as error:
            self._why = f"broke the protocol ({error})"
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        self._on_lost(self._why)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    async def send(self, frame: bytes) -> None:
        """Writes when the child has taken what was written before."""
        await self._writable.wait()
        self.write(frame)
        if len(frame) > 2**16:
            await asyncio.sleep(0)  # many large frames in a row must not stall the loop

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class ReplProcess:
    """A child process, from fork to end. `ended` resolves to what happened, in words, once it is dead."""

    def __init__(self, config: ReplConfig, handler: Handler | None, on_busy: Callable[[bool], None]) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        # Four bytes per character, and room for the rest of the frame.
        limit = 4 * (config.max_output_chars + config.max_answer_chars) + 2**17
        self._control = _Channel(self._control_frame, self._channel_lost, limit)
        self._llm = _Channel(self._llm_frame, self._channel_lost, 4 * config.max_batch_bytes + 2**17)
        self.batches = BatchHost(handler, config.max_batch_items, config.max_batch_bytes, self._llm.send, on_busy)
        self._child: Child | None = None
        self._ready: asyncio.Future[None] = loop.create_future()
        self._status: asyncio.Future[int] = loop.create_future()
        self._burying: asyncio.Task[None] | None = None
        self._why = ""
        self._kill_reason: str | None = None
        self._fork: asyncio.Future[str | None] | None = None
        """Of a fork that was asked for: why it was refused, or None."""
        self._one_fork = asyncio.Lock()
        self._raw: socket.socket | None = None
        self._zygote: Zygote | None = None
        self._step: tuple[int, Callable[[list[Scalar]], None]] | None = None
        self.ended: asyncio.Future[str] = loop.create_future()

    @classmethod
    async def open(
        cls,
        zygote: Zygote,
        config: ReplConfig,
        context: EncodedContext,
        handler: Handler | None,
        on_busy: Callable[[bool], None],
        seed: int,
        answer: str,
    ) -> ReplProcess:
        """Forks, connects, and waits until the child is behind its walls. `answer` is the content to begin with."""
        self = cls(config, handler, on_busy)
        request = {"kind": context.kind, "size": context.size, "seed": seed, "llm": handler is not None}
        control, control_child = socket.socketpair()
        llm, llm_child = socket.socketpair()
        fds = [control_child.fileno(), llm_child.fileno()]
        if context.fd is not None:
            fds.append(context.fd)
        try:
            self._child = await zygote.fork(request, fds, self._exited)
            control_child.close()
            llm_child.close()
            await self._connect(zygote, control, llm)
            await asyncio.wait_for(asyncio.shield(self._ready), config.start_timeout)
        except BaseException:
            self.kill("it was not opened")
            self._close_unconnected(control, llm)
            raise
        finally:
            control_child.close()
            llm_child.close()
        if answer:
            self._control.write(pack("answer", 0, answer))
        return self

    async def _connect(self, zygote: Zygote, control: socket.socket, llm: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._zygote, self._raw = zygote, control
        await loop.create_unix_connection(lambda: self._control, sock=control)
        await loop.create_unix_connection(lambda: self._llm, sock=llm)

    def _close_unconnected(self, control: socket.socket, llm: socket.socket) -> None:
        """Closes the sockets that no transport has taken over; one that has closes its own."""
        if not self._control.connected:
            control.close()
        if not self._llm.connected:
            llm.close()

    async def fork(self, handler: Handler | None, on_busy: Callable[[bool], None], seed: int | None) -> ReplProcess:
        """A twin of this process, which must be idle. ReplError where it refuses."""
        twin = ReplProcess(self._config, handler, on_busy)
        # Cancelled half-way, the process would answer a question that nobody has asked any more.
        forking = asyncio.get_running_loop().create_task(self._fork_into(twin, seed))
        try:
            await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(lambda done: (done.exception(), twin.kill("it was not wanted any more")))
            raise
        return twin

    async def _fork_into(self, twin: ReplProcess, seed: int | None) -> None:
        async with self._one_fork:
            await self._ask_to_fork(twin, seed)

    async def _ask_to_fork(self, twin: ReplProcess, seed: int | None) -> None:
        loop = asyncio.get_running_loop()
        control, control_child = socket.socketpair()
        llm, llm_child = socket.socketpair()
        output = os.memfd_create("output")
        # The kernel tells who writes to the new socket first: what a REPL says of its pid is not to be trusted.
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        control.setblocking(False)
        self._fork = loop.create_future()
        try:
            socket.send_fds(self._raw, [pack("fork", 0, seed)], [control_child.fileno(), llm_child.fileno(), output])
            await asyncio.wait(
                [self._fork, self.ended], timeout=self._config.start_timeout, return_when="FIRST_COMPLETED"
            )
            if not self._fork.done():
                raise ReplError("the REPL cannot be forked: its process does not answer")
            if self._fork.result() is not None:
                raise ReplError(f"the REPL cannot be forked: {self._fork.result()}")
            control_child.close()
            pid, inner_pid = await asyncio.wait_for(_first_words(loop, control), self._config.start_timeout)
            twin._child = self._zygote.adopt(pid, inner_pid, twin._exited)
            control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
            twin._ready.set_result(None)
            await twin._connect(self._zygote, control, llm)
        except BaseException:
            twin._close_unconnected(control, llm)
            raise
        finally:
            self._fork = None
            control_child.close()
            llm_child.close()
            os.close(output)

    @property
    def alive(self) -> bool:
        return self._burying is None

    @property
    def pid(self) -> int:
        return self._child.pid

    def cpu_seconds(self) -> float:
        return self._child.cpu_seconds() if self.alive else 0.0

    def queued_seconds(self) -> float:
        return self._child.queued_seconds() if self.alive else 0.0

    def run(self, number: int, name: str, source: str, on_done: Callable[[list[Scalar]], None]) -> None:
        """Sends a cell; `on_done` gets the fields of its report."""
        self._step = (number, on_done)
        self.batches.open = True
        self._control.write(pack("run", number, name, source))

    def interrupt(self) -> None:
        if self.alive:
            self._child.signal(signal.SIGINT)

    def kill(self, reason: str | None = None) -> None:
        """SIGKILL; `reason` becomes the text of `ended`."""
        self._kill_reason = self._kill_reason or reason
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
        self._channel_lost("")

    async def close(self) -> None:
        """Ends the process and waits for its end."""
        self.kill("it was closed")
        await asyncio.shield(self.ended)

    def _control_frame(self, fields: list[Scalar]) -> None:
        kind = fields[0] if fields else None
        if not self._ready.done():
            if kind == "ready" and len(fields) == 2 and type(fields[1]) is int:
                self._ready.set_result(None)
            elif kind == "failed" and len(fields) == 2:
                self._ready.set_exception(ReplError(f"the REPL's walls could not be raised: {fields[1]}"))
            else:
                raise ProtocolError("a frame before the process was ready")
            return
        if kind == "broken" and len(fields) == 2 and type(fields[1]) is str:
            self._why = f"was broken from within ({fields[1][:500]})"
            return
        if kind in ("forked", "refused") and self._fork is not None and not self._fork.done() and len(fields) == 3:
            self._fork.set_result(fields[2] if isinstance(fields[2], str) else None)
            return
        if self._step is None or kind != "done" or len(fields) != 8 or fields[1] != self._step[0]:
            raise ProtocolError("a report that was not asked for")
        types = (int, str, int, (str, type(None)), (str, type(None)), bool, int)
        if not all(isinstance(value, kinds) for value, kinds in zip(fields[1:], types, strict=True)):
            raise ProtocolError("a report with fields of other types")
        self.batches.open = False
        self.batches.cancel()
        (_, on_done), self._step = self._step, None
        on_done(fields[2:])

    def _llm_frame(self, fields: list[Scalar]) -> None:
        if not self._ready.done():
            raise ProtocolError("a batch before the process was ready")
        self.batches.receive(fields)

    def _channel_lost(self, why: str) -> None:
        self._why = self._why or why
        if self._burying is None:
            self._burying = asyncio.get_running_loop().create_task(self._bury())

    def _exited(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)
        self._channel_lost("")

    async def _bury(self) -> None:
        """After the first sign of death: makes sure of it, and says what happened."""
        self.batches.open = False
        self.batches.cancel()
        killed = False
        if not self._status.done():
            # A process that ended by itself is reaped within milliseconds; one that only closed its sockets lives.
            done, _ = await asyncio.wait([self._status], timeout=0.1 if not self._kill_reason else 0)
            if not done and self._child is not None:
                killed = True
                self._child.signal(signal.SIGKILL)
                await asyncio.wait([self._status], timeout=_EXIT_NOTICE)
        self._control.close()
        self._llm.close()
        if self._child is not None:
            self._child.release()
        status = self._status.result() if self._status.done() else None
        text = self._kill_reason or self._describe(status, killed)
        if not self._ready.done():
            self._ready.set_exception(ReplError(f"the REPL's process did not start: it {text}"))
            self._ready.exception()
        self.ended.set_result(text)

    def _describe(self, status: int | None, killed: bool) -> str:
        if self._why:
            return self._why
        if killed or status is None:
            return "closed its channel to the host"
        if status >= 0:
            return f"exited with status {status}"
        if status == -signal.SIGKILL:
            return "was killed (by itself, or by the system because memory ran out)"
        try:
            return f"crashed ({signal.Signals(-status).name})"
        except ValueError:
            return f"was ended by signal {-status}"


async def _first_words(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> tuple[int, int]:
    """(the pid that the kernel says has written "ready", the pid that it says it has)"""
    readable = loop.create_future()
    loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(sock)
    data, ancillary, _, _ = sock.recvmsg(64, socket.CMSG_SPACE(struct.calcsize("3i")))
    try:
        kind, inner_pid = unpack(data[HEADER.size :])
        pid = next(
            struct.unpack_from("3i", payload)[0] for _, kind_, payload in ancillary if kind_ == socket.SCM_CREDENTIALS
        )
    except (ProtocolError, ValueError, StopIteration):
        raise ReplError("the REPL cannot be forked: its twin did not come up") from None
    if kind != "ready" or type(inner_pid) is not int:
        raise ReplError("the REPL cannot be forked: its twin did not come up")
    return pid, inner_pid
