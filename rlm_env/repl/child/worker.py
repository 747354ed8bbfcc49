"""The REPL's process: its descriptors, its walls, and the loop that runs one cell after the other.

Runs in a child of the zygote, as the only process of its REPL. Everything it tells the host is a claim: the host
measures times, counts and sizes itself. Covered: the loop and the order of things. The parts are `cell.py`,
`capture.py`, `answer.py`, `batch.py`, `interrupts.py`, `walls.py`.
"""

from __future__ import annotations

import _socket
import dataclasses
import fcntl
import gc
import mmap
import os
import random
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from rlm_env.repl import context_file
from rlm_env.repl.child import fork
from rlm_env.repl.child.answer import Answer
from rlm_env.repl.child.batch import BatchClient
from rlm_env.repl.child.capture import Descriptors, Recorder
from rlm_env.repl.child.cell import Namespace, deny_processes
from rlm_env.repl.child.interrupts import Interrupts
from rlm_env.repl.sandbox import enter
from rlm_env.repl.wire import HEADER, Scalar, pack, pack_any, sanitize, unpack

CONTROL, LLM, OUTPUT, RULESET, CONTEXT, FIRST_FREE = 3, 4, 5, 6, 7, 8
"""Descriptors of a REPL's process."""
RESERVE = 8 * 2**20
DENIED = (
    "(The sandbox denies this: a REPL has no files but Python's own modules, no network, no other processes. "
    "Work on `context` in memory.)"
)
NO_PROCESSES = "a REPL is a single process: subprocesses are not allowed here; use Python instead"
_exit = os._exit
_getpid = os.getpid


@dataclass(frozen=True)
class Job:
    """What the zygote hands to a new child."""

    serial: int
    control: int
    llm: int
    context: int | None
    """Descriptor of the context's bytes; None where there is none or the zygote has it loaded."""
    context_kind: str
    context_size: int
    loaded: Any
    seed: int
    has_llm: bool
    """Whether the host answers `llm_batch`; else the name is not there."""
    max_output: int
    max_answer: int
    max_items: int
    max_bytes: int
    allow_fork: bool


def main(job: Job, parts: Parts, walls: enter.Walls, parent: int) -> None:
    """Never returns."""
    try:
        walls = _arrange_descriptors(job, walls)
        control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, CONTROL)
        llm = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, LLM)
    except BaseException:
        _exit(1)
    try:
        repl = Worker(job, parts, control, llm)
        enter.enter(walls, parent, enter.private_uid(walls, job.serial))
    except BaseException as error:
        control.sendall(pack("failed", sanitize(f"{type(error).__name__}: {error}"[:2000])))
        _exit(1)
    control.sendall(pack("ready", os.getpid()))
    try:
        while True:
            repl.step()
    except BaseException as error:  # a cell has broken us from within
        frame = error.__traceback__
        while frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{frame.tb_frame.f_code.co_name}:{frame.tb_lineno}"
        control.sendall(pack("broken", sanitize(f"{type(error).__name__} in {where}: {error}"[:500])))
        _exit(1)


def _arrange_descriptors(job: Job, walls: enter.Walls) -> enter.Walls:
    """The descriptors that a REPL needs at fixed numbers, and nothing else open."""
    wanted = {CONTROL: job.control, LLM: job.llm, RULESET: walls.ruleset, CONTEXT: job.context}
    high = {to: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for to, fd in wanted.items() if fd is not None}
    for to, fd in high.items():
        os.dup2(fd, to, inheritable=False)
    for to in {OUTPUT, *wanted} - high.keys():
        _close(to)
    os.closerange(FIRST_FREE, 1 << 16)
    return dataclasses.replace(walls, ruleset=RULESET) if walls.ruleset is not None else walls


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return


class Parts:
    """What every REPL starts with, made once in the zygote: each object that a child makes or touches costs it a
    page of its own."""

    def __init__(self, max_output: int, walled: bool, allow_processes: bool) -> None:
        sanitize("\ud800")  # loads its codec, which cannot be imported behind every wall
        self.interrupts = Interrupts()
        self.recorder = Recorder(max_output)
        if not allow_processes:
            deny_processes(NO_PROCESSES)
        self.namespace = Namespace(self.recorder, DENIED if walled else "")
        for name in [name for name in sys.modules if name.partition(".")[0] == "rlm_env"]:
            del sys.modules[name]  # for the model's code we are not there


class Worker:
    """One REPL's state in the child."""

    def __init__(self, job: Job, parts: Parts, control: _socket.socket, llm: _socket.socket) -> None:
        self._control = control
        self._may_fork = job.allow_fork
        self._pid = os.getpid()
        self._interrupts, self._recorder, self._namespace = parts.interrupts, parts.recorder, parts.namespace
        self._interrupts.install()
        self._descriptors = Descriptors(job.max_output)
        self._reserve: mmap.mmap | None = None
        self._sent_answer = ""
        value = job.loaded
        if job.context is not None:
            value = context_file.decode(CONTEXT, job.context_kind, job.context_size)
            os.close(CONTEXT)
        names = self._namespace.names
        names["context"] = value
        if job.has_llm:
            names["llm_batch"] = BatchClient(llm, self._interrupts, job.max_items, job.max_bytes).call
        self._answer = Answer(names, job.max_answer)
        _seed(job.seed)

    def step(self) -> None:
        """Waits for a request, carries it out, reports."""
        fds: list[int] = []
        header = self._receive(HEADER.size, fds)
        kind, number, *fields = unpack(self._receive(HEADER.unpack(header)[0]))
        if kind == "fork":
            self._fork(number, fds, *fields)
        elif kind == "answer":
            self._answer.content = self._sent_answer = self._namespace.names["answer"]["content"] = fields[0]
        else:
            self._cell(number, *fields)

    def _fork(self, number: int, fds: list[int], seed: int | None) -> None:
        """Becomes two; the twin goes on with the descriptors that the host has sent."""
        threads = len(sys._current_frames()) - 1
        if threads:
            for fd in fds:
                os.close(fd)
            reason = f"{threads} other threads are running in it; only a single-threaded REPL can be forked"
            self._control.sendall(pack("refused", number, reason))
            return
        drawn = random.getstate()  # Python seeds `random` anew in every fork
        if fork.clone():
            for fd in fds:
                os.close(fd)
            self._control.sendall(pack("forked", number, None))
            return
        self._pid = _getpid()
        control, llm, output = fds
        fork.take_over([control, llm, output, output, output], [CONTROL, LLM, OUTPUT, 1, 2])
        random.setstate(drawn)
        if seed is not None:
            _seed(seed)
        self._control.sendall(pack("ready", os.getpid()))

    def _cell(self, number: int, name: str, source: str) -> None:
        if self._reserve is None:
            self._reserve = _reserve()
        error = self._run(source, name)
        if _getpid() != self._pid:
            _exit(0)  # the cell forked (bare permits it), and this is the child
        self._namespace.restore()
        self._interrupts.install()
        try:
            frame = self._report(number, error)
        except MemoryError:
            self._free_reserve()
            self._recorder.take()
            frame = self._report(number, "MemoryError")
        self._control.sendall(frame)

    def _run(self, source: str, name: str) -> str | None:
        """Runs a cell and reads the answer. Returns the traceback of what went wrong."""
        interrupts, namespace = self._interrupts, self._namespace
        failure: BaseException | None = None
        try:
            try:
                interrupts.allow()
                namespace.run(source, name)
            finally:
                interrupts.forbid()
        except BaseException as caught:
            interrupts.forbid()
            failure = caught
        if isinstance(failure, MemoryError):
            self._free_reserve()
            failure.__traceback__ = _without_locals(failure)
        error: str | None = None
        # Still under the clock: what is called here may be the model's own __str__, __bool__ or __repr__.
        try:
            try:
                interrupts.allow()
                if failure is not None:
                    error = f"{type(failure).__name__}"
                    error = namespace.describe(failure)
                self._answer.read()
            finally:
                interrupts.forbid()
        except BaseException as caught:
            interrupts.forbid()
            error = error or f"{type(caught).__name__} while the answer was read"
        if failure is not None:
            failure.__traceback__ = None
        return error

    def _report(self, number: int, error: str | None) -> bytes:
        self._descriptors.drain(self._recorder)
        output, total = self._recorder.take()
        content = self._answer.content
        unchanged = content is self._sent_answer
        self._sent_answer = content
        fields: list[Scalar] = [number, output, total, error, None if unchanged else content]
        fields += [self._answer.ready, self._answer.cut]
        return pack_any("done", *fields)

    def _receive(self, size: int, fds: list[int] | None = None) -> bytearray:
        """Exactly `size` bytes; descriptors that come with them are added to `fds`."""
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            if fds is not None and self._may_fork:
                count, ancillary, _, _ = self._control.recvmsg_into([view[filled:]], _socket.CMSG_SPACE(4 * 3))
                for _, _, payload in ancillary:
                    fds += memoryview(payload).cast("i")
            else:
                count = self._control.recv_into(view[filled:])
            if not count:
                _exit(0)  # the host closed this REPL, or is gone
            filled += count
        return data

    def _free_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None


def _reserve() -> mmap.mmap | None:
    """Address space kept back, so that a cell that used it all up can still be reported."""
    try:
        return mmap.mmap(-1, RESERVE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, MemoryError):
        return None


def _without_locals(error: BaseException) -> Any:
    """The traceback with its frames' variables dropped: they hold the memory that ran out."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    return error.__traceback__


def _seed(seed: int) -> None:
    """Forked siblings would all draw the same numbers; numpy's legacy generator is not reseeded by fork."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
