"""The host's end of a zygote: starting it, asking it to fork, learning of exits.

Which isolation level it is to use is decided in `isolation.py`; a forked child is `process.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_env.repl.bounds import MAX_ZYGOTE_MESSAGE
from rlm_env.repl.config import ReplError, SandboxError
from rlm_env.repl.host.resources import in_words, is_shortage

END_SECONDS = 2.0
"""For a zygote to end by itself once its host has closed the connection."""
_ANOTHER = "the next call starts another"
_POLL = 0.002
"""Seconds between looks whether it has."""
_BOOT = str(Path(__file__).parents[1] / "child" / "boot.py")


@dataclass
class Child:
    """A forked process as the host knows it."""

    serial: int
    pid: int
    """In the host's pid namespace, also where the zygote lives in another."""
    pidfd: int | None
    zygote: ZygoteClient
    _releasing: threading.Lock = field(default_factory=threading.Lock)

    def signal(self, number: int) -> None:
        """Sends a signal; nothing happens where the process has ended."""
        if self.pidfd is None:
            self.zygote.request_signal(self.serial, number)
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return
        except PermissionError:  # a root without CAP_KILL, and a REPL with a private uid
            self.zygote.request_signal(self.serial, number)

    def has_ended(self) -> bool:
        """True as soon as it has, also where its parent has not noticed yet; False on a kernel without pidfds."""
        if self.pidfd is None:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def cpu_seconds(self) -> float:
        """CPU time that the process has used so far; 0 where the clock cannot be read."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def signal_from_thread(self, number: int) -> None:
        """`signal`, from any thread; nothing happens on a kernel without pidfds."""
        with self._releasing:
            if self.pidfd is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(self.pidfd, number)

    def release(self) -> None:
        with self._releasing:
            if self.pidfd is not None:
                os.close(self.pidfd)
                self.pidfd = None


class ZygoteClient:
    """A running zygote, as its host talks to it. Belongs to the event loop that started it."""

    def __init__(self, process: subprocess.Popen[bytes] | None, control: socket.socket, errors: int) -> None:
        self._process = process
        self._control = control
        self._errors = errors
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._on_exit: dict[int, Callable[[int], None]] = {}
        self._early_exits: dict[int, int] = {}
        """Children that ended before the reply to their fork was read."""
        self._on_fork_exit: dict[int, Callable[[int], None]] = {}
        self._next_id = 0
        self._outbox: list[tuple[bytes, tuple[int, ...]]] = []
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self.facts: dict[str, Any] = {}
        """The zygote's report of when it came up."""

    @property
    def pid(self) -> int:
        """The process that was started: the zygote itself, or at level jail the bubblewrap around it."""
        return self.facts["pid"] if self._process is None else self._process.pid

    @classmethod
    async def start(cls, spec: dict[str, Any], limit: float, command: list[str]) -> ZygoteClient:
        """Starts `command` (a Python interpreter, behind what it is run by) as a zygote, and waits at most `limit`
        seconds until it has imported its packages. SandboxError where it does not come up."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            errors = os.memfd_create("zygote-errors")
        except OSError as error:
            raise _cannot_start(error) from error
        try:
            # An empty environment: nothing of the host's is inherited. The hash seed is fixed so that the order of
            # sets of str, and with it a rollout, can be reproduced.
            process = subprocess.Popen(  # noqa: ASYNC220 (from this thread, whose end is to end the zygote)
                [*command, "-s", "-S", "-P", "-X", "utf8", _BOOT, str(theirs.fileno())],
                env={"PYTHONHASHSEED": "0"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            ours.close()
            os.close(errors)
            raise _cannot_start(error) from error
        finally:
            theirs.close()
        ours.setblocking(False)
        zygote = cls(process, ours, errors)
        await zygote._come_up(limit, spec)
        return zygote

    async def _come_up(self, limit: float, spec: dict[str, Any] | None = None) -> None:
        """Sends the instructions and waits until the zygote answers."""
        self._waiting[0] = self._loop.create_future()
        self._loop.add_reader(self._control, self._readable)
        try:
            if spec is not None:
                # By a file: the paths of many packages are more than a message can hold.
                with os.fdopen(os.memfd_create("instructions"), "w+b") as file:
                    file.write(json.dumps(spec).encode())
                    file.seek(0)
                    self._post(b"!", (file.fileno(),))
            self.facts, _ = await asyncio.wait_for(self._waiting[0], limit)
        except TimeoutError:
            await self.close()
            raise SandboxError(
                f"the zygote did not come up within {limit:g} s: raise start_timeout, or preload fewer packages"
            ) from None
        except BaseException:
            await self.close()
            raise

    async def fork_group(self, kind: str, size: int, context: int, limit: float) -> ZygoteClient:
        """A zygote forked from this one that has the context loaded: its REPLs share it copy-on-write. SandboxError
        where it is not up within `limit` seconds; the caller limits the time of the fork itself."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        request = {"op": "group", "kind": kind, "size": size}
        try:
            child = await self._request_fork(request, (theirs.fileno(), context), lambda _status: None)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        child.release()
        zygote = ZygoteClient(None, ours, -1)
        await zygote._come_up(limit)
        return zygote

    async def fork(self, request: dict[str, Any], fds: tuple[int, ...], on_exit: Callable[[int], None]) -> Child:
        """A new child; `on_exit` is called with its exit code (negative: signal) when it has ended. How long to wait
        for it is the caller's matter; a child that nobody waits for any more ends."""
        return await self._request_fork({"op": "fork", **request}, fds, on_exit)

    def adopt(self, pid: int, inner_pid: int, on_exit: Callable[[int], None]) -> Child:
        """A process that a REPL has forked (`child/fork.py`): the zygote is its parent. `inner_pid` is the id that it
        claims to have; it only decides whose exit code is reported to `on_exit`."""
        self._on_fork_exit[inner_pid] = on_exit
        return Child(-1, pid, os.pidfd_open(pid), self)

    async def _request_fork(
        self, request: dict[str, Any], fds: tuple[int, ...], on_exit: Callable[[int], None]
    ) -> Child:
        """Asks for a child; ReplError where it cannot be forked."""
        reply, received = await self._ask(request, fds)
        if reply["op"] != "forked":
            raise ReplError(f"no REPL can be forked: {in_words(OSError(reply['errno'], reply['error']))}")
        if reply["pidfd"] and not received:  # the kernel drops what this process has no number left for
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        pidfd = received[0] if received else None
        try:
            pid = _host_pid(pidfd)
        except OSError:
            self._discard(reply, received)
            raise
        child = Child(reply["serial"], pid or reply["pid"], pidfd, self)
        if child.serial in self._early_exits:
            self._loop.call_soon(on_exit, self._early_exits.pop(child.serial))
        else:
            self._on_exit[child.serial] = on_exit
        return child

    async def self_test(self, limit: float) -> dict[str, Any]:
        """Runs the sandbox's self-test (`sandbox/selftest.py`): {"attacks": ..., "error": ...}. ReplError where it
        could not be begun."""
        reply, _ = await asyncio.wait_for(self._ask({"op": "self-test", "host": os.getpid()}, ()), limit)
        if "errno" in reply:
            raise _cannot_start(OSError(reply["errno"], reply["error"]))
        return reply

    def request_signal(self, serial: int, number: int) -> None:
        """For kernels without pidfds: the zygote, as the parent, cannot signal a reused process id by mistake."""
        if self.alive:
            self._post(json.dumps({"op": "kill", "serial": serial, "signal": number}).encode(), ())

    async def close(self) -> None:
        """Ends the zygote; its children end with it."""
        self._lost("the pool was closed")
        if self._process is None:
            return  # a group's zygote: its parent reaps it
        if not self.facts:  # it is importing still, and would hear of it only afterwards
            self._process.kill()
        if not await _has_ended(self._process, END_SECONDS):
            self._process.kill()
            await _has_ended(self._process, END_SECONDS)
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    async def _ask(self, request: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], list[int]]:
        """Sends a request and waits for its reply."""
        if not self.alive:
            raise ReplError(f"the zygote is gone; {_ANOTHER}")
        self._next_id += 1
        future = self._waiting[self._next_id] = self._loop.create_future()
        self._post(json.dumps({**request, "id": self._next_id}).encode(), fds)
        return await future

    def _post(self, message: bytes, fds: tuple[int, ...]) -> None:
        """Sends, or queues where the zygote is busy. Descriptors are duplicated while they wait."""
        if len(message) > MAX_ZYGOTE_MESSAGE:
            raise ReplError(f"a request of {len(message)} bytes is too long for the zygote")
        if not self._outbox and self._try_send(message, fds):
            return
        self._outbox.append((message, tuple(os.dup(fd) for fd in fds)))
        self._loop.add_writer(self._control, self._writable)

    def _try_send(self, message: bytes, fds: tuple[int, ...]) -> bool:
        try:
            socket.send_fds(self._control, [message], fds)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(f"the zygote is gone ({error.strerror}); {_ANOTHER}")
        return True

    def _writable(self) -> None:
        while self._outbox and self._try_send(*self._outbox[0]):
            for fd in self._outbox.pop(0)[1]:
                os.close(fd)
        if not self._outbox and self.alive:
            self._loop.remove_writer(self._control)

    def _readable(self) -> None:
        """Reads replies and reports of ended children."""
        for _ in range(64):
            try:
                data, fds, _flags, _address = socket.recv_fds(
                    self._control, MAX_ZYGOTE_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                words = f"the zygote ended ({self._last_words()})"
                self._lost(f"{words}; {_ANOTHER}" if self.facts else f"{words} before it was up")
                return
            message = json.loads(data)
            if message["op"] == "exit":
                self._exited(message["serial"], message["pid"], message["status"])
                continue
            future = self._waiting.pop(message.get("id", 0), None)
            if future is not None and not future.done():
                future.set_result((message, fds))
            else:
                self._discard(message, fds)

    def _discard(self, message: dict[str, Any], fds: list[int]) -> None:
        """Drops a reply that nobody waits for any more. A child that was forked for nothing ends at once, because its
        sockets are closed."""
        for fd in fds:
            os.close(fd)
        if message["op"] == "forked":
            self._on_exit[message["serial"]] = lambda _status: None

    def _exited(self, serial: int | None, pid: int, status: int) -> None:
        """A child has ended: tells whoever owns it."""
        callback = self._on_fork_exit.pop(pid, None) if serial is None else self._on_exit.pop(serial, None)
        if callback is not None:
            callback(status)
        elif serial is not None:
            self._early_exits[serial] = status

    def _lost(self, why: str) -> None:
        """The zygote is gone: everybody who waits gets SandboxError."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SandboxError(why))
                future.exception()  # it may be that nobody waits any more
        self._waiting.clear()
        callbacks = [*self._on_exit.values(), *self._on_fork_exit.values()]
        self._on_exit.clear()
        self._on_fork_exit.clear()
        for callback in callbacks:
            callback(-signal.SIGKILL)

    def _last_words(self) -> str:
        """The last line that the zygote wrote to its standard error."""
        text = os.pread(self._errors, 16_384, 0).decode("utf-8", "replace").strip() if self._errors >= 0 else ""
        return text.splitlines()[-1] if text else "without a message: it was killed, for example for want of memory"


def _cannot_start(error: OSError) -> ReplError:
    """Where something has run out, it says nothing about the isolation level, and no lower one is tried."""
    kind = ReplError if is_shortage(error) else SandboxError
    return kind(f"the zygote cannot be started: {in_words(error)}")


async def _has_ended(process: subprocess.Popen[bytes], limit: float) -> bool:
    """Waits for its end, at most `limit` seconds. Not in a thread, which a busy system may not give."""
    end = time.monotonic() + limit
    while process.poll() is None:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(_POLL)
    return True


def _host_pid(pidfd: int | None) -> int | None:
    """The process id behind a pidfd, in this process's own namespace. OSError where it cannot be read for want of
    resources."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
            return next((int(line[4:]) for line in info if line.startswith("Pid:")), None)
    except FileNotFoundError:
        return None
