"""The host's hold on the process of one REPL: two sockets, a pidfd, and how it ended.

Opening and forking, reports and their hostile input, signals, noticing death at once. Steps and their clocks are
`step.py`'s, `llm_batch` is `batch_host.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from rlm_env.repl.config import ReplConfig, ReplError
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host.batch_host import BatchHost, Handler
from rlm_env.repl.host.cell_report import REPORT_FIELDS, CellReport, cell_report
from rlm_env.repl.host.channel import Channel
from rlm_env.repl.host.core_queue import CoreQueue
from rlm_env.repl.host.pool_limits import PoolLimits
from rlm_env.repl.host.scratch import ScratchDirectory
from rlm_env.repl.host.zygote_client import Child, ZygoteClient
from rlm_env.repl.wire import HEADER, MAX_PROMPT_FIELDS, MAX_PROMPT_FRAME, ProtocolError, Scalar, pack, unpack

_EXIT_NOTICE = 1.0


class _RunningCell(NamedTuple):
    number: int
    on_busy: Callable[[bool], None]
    on_done: Callable[[CellReport], None]
    on_lost: Callable[[], None]


class ReplProcess:
    """A child process, from fork to end. `ended` resolves to what happened, in words, once it is dead."""

    def __init__(
        self,
        config: ReplConfig,
        handler: Handler | None,
        zygote: ZygoteClient,
        limits: PoolLimits,
        child: Child,
        status: asyncio.Future[int],
        sockets: tuple[socket.socket, socket.socket],
        scratch: ScratchDirectory | None,
    ) -> None:
        """`status`: gets the exit code. `sockets`: control and llm, not connected to the event loop yet. `scratch`: its
        temporary directory."""
        loop = self._loop = asyncio.get_running_loop()
        self._config = config
        self._zygote = zygote
        self._limits = limits
        self._child = child
        self._core_queue = CoreQueue(f"/proc/{child.pid}")
        self._status = status
        self._sockets = sockets
        self.scratch = scratch
        # Four bytes per character, and room for the rest of the frame.
        limit = 4 * (config.max_output_chars + config.max_answer_chars) + 2**17
        self._control = Channel(self._control_frame, self._channel_lost, limit, REPORT_FIELDS, REPORT_FIELDS)
        self._llm = Channel(self._llm_frame, self._channel_lost, MAX_PROMPT_FRAME, MAX_PROMPT_FIELDS, 5)
        self.batches = BatchHost(
            handler, config.max_batch_items, config.max_batch_bytes, self._llm, self._busy, limits.prompts
        )
        self._ready: asyncio.Future[None] = loop.create_future()
        self._burying: asyncio.Task[None] | None = None
        self._why = ""
        self._kill_reason: str | None = None
        self._fork: asyncio.Future[str | None] | None = None
        """The reply to a request to fork: why it was refused, or None."""
        self._one_fork = asyncio.Lock()
        self._cell: _RunningCell | None = None
        self.ended: asyncio.Future[str] = loop.create_future()
        status.add_done_callback(lambda _status: self._channel_lost(""))
        limits.watchdog.add(self)

    @classmethod
    async def open(
        cls,
        zygote: ZygoteClient,
        config: ReplConfig,
        limits: PoolLimits,
        context: EncodedContext,
        handler: Handler | None,
        seed: int,
        answer: str = "",
    ) -> ReplProcess:
        """Forks, connects, and waits until the child has entered its sandbox; the caller limits the time. `answer`: the
        content to begin with."""
        limits.watchdog.start()
        request = {"kind": context.kind, "size": context.size, "seed": seed, "llm": handler is not None}
        scratch = None if limits.scratch is None else limits.scratch.directory()
        request["scratch"] = None if scratch is None else [scratch.repl, scratch.name]
        sockets, theirs = _two_pairs()
        fds = (theirs[0].fileno(), theirs[1].fileno(), *(() if context.fd is None else (context.fd,)))
        status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        process: ReplProcess | None = None
        try:
            child = await zygote.fork(request, fds, _resolver(status))
            process = cls(config, handler, zygote, limits, child, status, sockets, scratch)
            _close_all(theirs)
            await process._connect()
            await asyncio.shield(process._ready)
        except BaseException:
            if process is None:
                _close_all(sockets)
            else:
                process._give_up()
            raise
        finally:
            _close_all(theirs)
        if answer:
            process._control.write(pack("answer", 0, answer))
        return process

    async def _connect(self) -> None:
        """Hands both sockets to the event loop."""
        loop = asyncio.get_running_loop()
        control, llm = self._sockets
        await loop.create_unix_connection(lambda: self._control, sock=control)
        await loop.create_unix_connection(lambda: self._llm, sock=llm)

    def _give_up(self) -> None:
        """Ends a process that could not be opened."""
        self.kill("it was not opened")
        # A socket that a transport has taken over is closed by the transport.
        for sock, channel in zip(self._sockets, (self._control, self._llm), strict=True):
            if not channel.connected:
                sock.close()

    async def fork(self, handler: Handler | None, seed: int | None, limit: float) -> ReplProcess:
        """A copy of this process, which must be idle. ReplError where it refuses, or has not done it within `limit`
        seconds."""
        # Shielded: cancelled half-way, the process would answer a request that nobody remembers.
        forking = self._loop.create_task(self._fork_once(handler, seed, limit))
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(_discard_fork)
            raise

    async def _fork_once(self, handler: Handler | None, seed: int | None, limit: float) -> ReplProcess:
        async with self._one_fork:
            loop = asyncio.get_running_loop()
            sockets, theirs = _two_pairs()
            output = os.memfd_create("output")
            forked: ReplProcess | None = None
            try:
                # The kernel says who writes to the new socket first: a REPL's own word for its pid is not trusted.
                sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                sockets[0].setblocking(False)
                scratch = None if self.scratch is None else self.scratch.fork()
                await self._request_fork(seed, scratch, [theirs[0].fileno(), theirs[1].fileno(), output], limit)
                theirs[0].close()
                try:
                    pid, inner_pid = await asyncio.wait_for(_first_words(loop, sockets[0]), limit)
                except TimeoutError:
                    raise ReplError("the REPL cannot be forked: the fork did not come up") from None
                status: asyncio.Future[int] = loop.create_future()
                child = self._zygote.adopt(pid, inner_pid, _resolver(status))
                forked = ReplProcess(self._config, handler, self._zygote, self._limits, child, status, sockets, scratch)
                sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
                forked._ready.set_result(None)
                await forked._connect()
                return forked
            except BaseException:
                if forked is None:
                    _close_all(sockets)
                else:
                    forked._give_up()
                raise
            finally:
                _close_all(theirs)
                os.close(output)

    async def _request_fork(
        self, seed: int | None, scratch: ScratchDirectory | None, fds: list[int], limit: float
    ) -> None:
        reply = self._fork = asyncio.get_running_loop().create_future()
        try:
            socket.send_fds(
                self._sockets[0], [pack("fork", 0, seed, scratch.name if scratch is not None else None)], fds
            )
            await asyncio.wait([reply, self.ended], timeout=limit, return_when="FIRST_COMPLETED")
        finally:
            self._fork = None
        if not reply.done():
            raise ReplError("the REPL cannot be forked: its process does not answer")
        if reply.result() is not None:
            raise ReplError(f"the REPL cannot be forked: {reply.result()}")

    @property
    def alive(self) -> bool:
        return self._burying is None

    @property
    def pid(self) -> int:
        return self._child.pid

    def cpu_seconds(self) -> float:
        return self._child.cpu_seconds() if self.alive else 0.0

    def queued_seconds(self) -> float:
        return self._core_queue.since_last_look() if self.alive else 0.0

    def run(
        self,
        number: int,
        name: str,
        source: str,
        on_busy: Callable[[bool], None],
        on_done: Callable[[CellReport], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Sends a cell. `on_busy` gets True when its first batch is in flight, False when none is any more. `on_lost`
        is called at the first sign that the process ends before the cell has."""
        self._cell = _RunningCell(number, on_busy, on_done, on_lost)
        self.batches.open()
        self._control.write(pack("run", number, name, source))

    def interrupt(self) -> None:
        """SIGINT, if it is alive."""
        if self.alive:
            self._child.signal(signal.SIGINT)

    def kill(self, reason: str | None = None) -> None:
        """SIGKILL; `reason` becomes the text of `ended`."""
        self._kill_reason = self._kill_reason or reason
        self._child.signal(signal.SIGKILL)
        self._channel_lost("")

    def end_from_thread(self, reason: str) -> None:
        """`kill`, from any thread."""
        self._kill_reason = self._kill_reason or reason
        self._child.signal_from_thread(signal.SIGKILL)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left who wants to know
            self._loop.call_soon_threadsafe(self.kill, reason)

    async def close(self) -> None:
        """Ends the process and waits for its end."""
        self.kill("it was closed")
        await asyncio.shield(self.ended)

    async def hold_to_scratch(self) -> None:
        """Ends the process where its temporary directory holds too much."""
        base, watch = self._limits.scratch, self._limits.scratch_watch
        if base is not None and watch is not None:
            reason = await base.in_thread(watch.excess, self)
            if reason is not None:
                self.kill(reason)

    def forget(self, ended: ReplProcess) -> None:
        """Frees the room of a fork that has ended, where that is not the host's matter."""
        if ended.scratch is not None:
            self._control.write(pack("forget", 0, ended.scratch.name))

    def _busy(self, busy: bool) -> None:
        if self._cell is not None:
            self._cell.on_busy(busy)

    def _control_frame(self, fields: list[Scalar]) -> None:
        """A frame on the control channel: ready, done, broken, forked."""
        if not self._ready.done():
            match fields:
                case ["ready", int()]:
                    self._ready.set_result(None)
                case ["failed", reason]:
                    self._ready.set_exception(ReplError(f"the REPL could not enter its sandbox: {reason}"))
                case _:
                    raise ProtocolError("a frame before the process was ready")
            return
        kind = fields[0] if fields else None
        if kind == "done" and self._cell is not None and fields[1:2] == [self._cell.number]:
            self._done(self._cell, cell_report(fields))
            return
        match fields:
            case ["broken", str(what)] if not self._why:
                self._why = f"was broken from within ({what[:500]})"
            case ["forked", _, _] if self._fork is not None and not self._fork.done():
                self._fork.set_result(None)
            case ["refused", _, str(reason)] if self._fork is not None and not self._fork.done():
                self._fork.set_result(reason)
            case _:
                raise ProtocolError("a report that was not asked for")

    def _done(self, cell: _RunningCell, report: CellReport) -> None:
        """The cell has reported."""
        self._cell = None
        self.batches.close()
        cell.on_done(report)

    def _llm_frame(self, fields: list[Scalar]) -> None:
        """A frame on the channel of `llm_batch`."""
        if not self._ready.done():
            raise ProtocolError("a batch before the process was ready")
        self.batches.receive(fields)

    def _channel_lost(self, why: str) -> None:
        self._why = self._why or why
        if self._burying is None:
            if self._cell is not None:
                self._cell.on_lost()
            self._burying = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        """After the first sign of death: makes sure of it, and says what happened."""
        self.batches.close()
        killed = False
        if not self._status.done():
            # A process that ended by itself is reaped within milliseconds; one that only closed its sockets lives.
            done, _ = await asyncio.wait([self._status], timeout=0.1 if not self._kill_reason else 0)
            if not done:
                killed = not self._child.has_ended()  # else the zygote is only slow to tell
                self._child.signal(signal.SIGKILL)
                await asyncio.wait([self._status], timeout=_EXIT_NOTICE)
        self._control.close()
        self._llm.close()
        self._child.release()
        self._limits.watchdog.discard(self)
        status = self._status.result() if self._status.done() else None
        text = self._kill_reason or self._describe(status, killed)
        try:
            if self.scratch is not None and self._limits.scratch is not None:
                await self._limits.scratch.in_thread(self.scratch.remove)
        finally:
            if not self._ready.done():
                self._ready.set_exception(ReplError(f"the REPL's process did not start: it {text}"))
                self._ready.exception()
            self.ended.set_result(text)

    def _describe(self, status: int | None, killed: bool) -> str:
        """How the process ended, in words for the model."""
        if self._why:
            return self._why
        if status is None:
            return "ended; its parent did not tell how"
        if killed and status == -signal.SIGKILL:
            return "closed its channel to the host"
        if status >= 0:
            return f"exited with status {status}"
        if status == -signal.SIGKILL:
            return "was killed (by itself, or by the system because memory ran out)"
        try:
            return f"crashed ({signal.Signals(-status).name})"
        except ValueError:
            return f"was ended by signal {-status}"


def _two_pairs() -> tuple[tuple[socket.socket, socket.socket], tuple[socket.socket, socket.socket]]:
    """((control, llm), the child's ends of them)"""
    control, control_child = socket.socketpair()
    try:
        llm, llm_child = socket.socketpair()
    except OSError:
        _close_all((control, control_child))
        raise
    return (control, llm), (control_child, llm_child)


def _close_all(sockets: tuple[socket.socket, ...]) -> None:
    for sock in sockets:
        sock.close()


def _resolver(status: asyncio.Future[int]) -> Callable[[int], None]:
    """Sets `status` once."""
    return lambda code: None if status.done() else status.set_result(code)


def _discard_fork(done: asyncio.Task[ReplProcess]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().kill("it was not wanted any more")


async def _first_words(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> tuple[int, int]:
    """Reads the "ready" of a forked process: (the sender's pid according to the kernel, the pid that it claims)."""
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
        raise ReplError("the REPL cannot be forked: the fork did not come up") from None
    if kind != "ready" or type(inner_pid) is not int:
        raise ReplError("the REPL cannot be forked: the fork did not come up")
    return pid, inner_pid
