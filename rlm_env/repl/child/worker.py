"""The REPL's process: its descriptors, its sandbox, and the loop that runs one cell after the other.

Runs in a child of the zygote, as the only process of its REPL. Everything it sends to the host is a claim: the host
measures times, counts and sizes itself. This file has the loop and the order of things; the parts are `cell.py`,
`capture.py`, `answer.py`, `batch.py`, `interrupts.py` and `../sandbox/enter.py`.
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
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

from rlm_env.repl import context_file
from rlm_env.repl.child import fork
from rlm_env.repl.child.aliases import aliases_for
from rlm_env.repl.child.answer import Answer
from rlm_env.repl.child.batch import BatchClient
from rlm_env.repl.child.capture import Descriptors, Recorder
from rlm_env.repl.child.cell import Namespace, deny_processes
from rlm_env.repl.child.interrupts import Interrupts
from rlm_env.repl.child.private_maps import use_private_maps
from rlm_env.repl.child.scratch import Scratch, move_by_copying
from rlm_env.repl.child.threads_only import use_threads
from rlm_env.repl.sandbox.enter import PreparedSandbox, enter_sandbox
from rlm_env.repl.wire import HEADER, Scalar, pack, pack_any, sanitize, unpack_likely

CONTROL, LLM, OUTPUT, RULESET, CONTEXT, FIRST_FREE = 3, 4, 5, 6, 7, 8
"""Descriptors of a REPL's process."""
RESERVE = 8 * 2**20
_REQUEST_FIELDS = 4
"""Fields of the request to run a cell."""
DENIED = (
    "(The sandbox denies this: a REPL has no files but Python's own modules, no network, no other processes. "
    "Work on `context` in memory.)"
)
DENIED_BUT_SCRATCH = (
    "(The sandbox denies this: a REPL has no files but Python's own modules and those that it makes below "
    "tempfile.gettempdir(), without links; no network, no other processes.)"
)
NO_PROCESSES = "a REPL is a single process: subprocesses are not allowed here; use Python instead"
_exit = os._exit
_getpid = os.getpid
_TRACE, _CLASS_NAME = vars(BaseException)["__traceback__"], vars(type)["__name__"]
"""The attributes themselves, whatever a class of the model makes of them."""


@dataclass(frozen=True)
class WorkerSpec:
    """Descriptors and limits of a new child, from the zygote."""

    uid: int | None
    """The user id that it is to have; None for the zygote's."""
    control: int
    llm: int
    context: int | None
    """Descriptor of the context's bytes; None where there is none or the zygote has it loaded."""
    context_kind: str
    context_size: int
    loaded: Any
    seed: int
    has_llm: bool
    """The host answers `llm_batch`. Else the name is not defined."""
    max_output: int
    max_answer: int
    max_items: int
    max_bytes: int
    allow_fork: bool
    aliases: bool
    scratch: tuple[str, str] | None
    """Names for its temporary directory: of what it has in common with its forks, and of its own."""


def run_worker(spec: WorkerSpec, parts: Parts, sandbox: PreparedSandbox, parent: int) -> NoReturn:
    """Enters the sandbox and serves the host until it closes the REPL. Never returns."""
    try:
        sandbox = _arrange_descriptors(spec, sandbox)
        control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, CONTROL)
        llm = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, LLM)
    except BaseException:
        _exit(1)
    try:
        worker = Worker(spec, parts, control, llm)
        common, own = spec.scratch or (None, "")
        worker.use_scratch(enter_sandbox(sandbox, parent, spec.uid, common), own)
    except BaseException as error:
        control.sendall(pack("failed", sanitize(f"{type(error).__name__}: {error}"[:2000])))
        _exit(1)
    control.sendall(pack("ready", os.getpid()))
    try:
        while True:
            worker.step()
    except BaseException as error:  # a cell has broken us from within
        where = _innermost_frame(error.__traceback__)
        control.sendall(pack("broken", sanitize(f"{type(error).__name__} in {where}: {error}"[:500])))
        _exit(1)


def _innermost_frame(trace: TracebackType | None) -> str:
    name = "?"
    while trace is not None:
        name = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return name


def _arrange_descriptors(spec: WorkerSpec, sandbox: PreparedSandbox) -> PreparedSandbox:
    """Puts the descriptors that a REPL needs at fixed numbers, and closes all others."""
    wanted = {CONTROL: spec.control, LLM: spec.llm, RULESET: sandbox.ruleset, CONTEXT: spec.context}
    high = {to: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for to, fd in wanted.items() if fd is not None}
    for to, fd in high.items():
        os.dup2(fd, to, inheritable=False)
    for to in {OUTPUT, *wanted} - high.keys():
        _close(to)
    os.closerange(FIRST_FREE, 1 << 16)
    # Its own opening of it: the flags of a shared one would be seen by all REPLs.
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    return dataclasses.replace(sandbox, ruleset=RULESET) if sandbox.ruleset is not None else sandbox


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return


class Parts:
    """Objects that every REPL needs, made once in the zygote: what a child makes or changes itself costs it memory that
    is not shared."""

    def __init__(self, max_output: int, *, confined: bool, scratch: bool) -> None:
        sanitize("\ud800")  # loads its codec, which cannot be imported at every isolation level
        self.interrupts = Interrupts()
        self.recorder = Recorder(max_output)
        if confined:
            deny_processes(NO_PROCESSES)
            use_threads()
            use_private_maps()
            # Nothing can be made there; but packages that ask for a name at their import (torch, datasets) get one.
            tempfile.tempdir = "/tmp"
            if scratch:
                move_by_copying()
        denied = DENIED_BUT_SCRATCH if scratch else DENIED
        self.namespace = Namespace(self.recorder, denied if confined else "")
        for name in [name for name in sys.modules if name.partition(".")[0] == "rlm_env"]:
            del sys.modules[name]  # hides our modules from the model's code


class Worker:
    """One REPL's state in the child."""

    def __init__(self, spec: WorkerSpec, parts: Parts, control: _socket.socket, llm: _socket.socket) -> None:
        self._control = control
        self._may_fork = spec.allow_fork
        self._pid = os.getpid()
        self._interrupts, self._recorder, self._namespace = parts.interrupts, parts.recorder, parts.namespace
        self._interrupts.install()
        self._descriptors = Descriptors(spec.max_output)
        self._reserve: mmap.mmap | None = None
        self._scratch: Scratch | None = None
        self._sent_answer = ""
        value = spec.loaded
        if spec.context is not None:
            value = context_file.decode(CONTEXT, spec.context_kind, spec.context_size)
            os.close(CONTEXT)
        names = self._namespace.names
        names["context"] = value
        self._llm_batch: Callable[[Any], list[Any]] | None = None
        if spec.has_llm:
            self._llm_batch = BatchClient(llm, self._interrupts, spec.max_items, spec.max_bytes).call
            names["llm_batch"] = self._llm_batch
        if spec.aliases:
            names |= aliases_for(names)
        self._answer = Answer(names, spec.max_answer)
        _seed(spec.seed)

    def use_scratch(self, common: str | None, own: str) -> None:
        """The temporary directory is `own` in the folder `common`; None: there is none."""
        self._scratch = None if common is None else Scratch(common, own)

    def step(self) -> None:
        """Waits for a request, carries it out, reports."""
        fds: list[int] = []
        header = self._receive(HEADER.size, fds)
        # From our own host: types are as agreed.
        frame: list[Any] = unpack_likely(_REQUEST_FIELDS, self._receive(HEADER.unpack(header)[0]))
        kind, number, *fields = frame
        if kind == "fork":
            self._fork(number, fds, *fields)
        elif kind == "answer":
            self._answer.content = self._sent_answer = self._namespace.names["answer"]["content"] = fields[0]
        elif kind == "forget":
            if self._scratch is not None:
                self._scratch.forget(fields[0])
        else:
            self._cell(number, *fields)

    def _fork(self, number: int, fds: list[int], seed: int | None, scratch: str | None) -> None:
        """Forks this process; the fork goes on with the descriptors that the host has sent, and a temporary directory
        of that name."""
        threads = len(sys._current_frames()) - 1
        if threads:
            for fd in fds:
                os.close(fd)
            reason = f"{threads} other threads are running in it; only a single-threaded REPL can be forked"
            self._control.sendall(pack("refused", number, reason))
            return
        drawn = random.getstate()  # Python seeds `random` anew in every fork
        if fork.fork_sibling():
            for fd in fds:
                os.close(fd)
            self._control.sendall(pack("forked", number, None))
            return
        self._pid = _getpid()
        control, llm, output = fds
        fork.take_over([control, llm, output, output, output], [CONTROL, LLM, OUTPUT, 1, 2])
        random.setstate(drawn)
        if self._scratch is not None and scratch is not None:
            self._scratch.take(scratch)
        if seed is not None:
            _seed(seed)
        self._control.sendall(pack("ready", os.getpid()))

    def _cell(self, number: int, name: str, source: str) -> None:
        """Runs a cell, tidies up after it, and sends its report."""
        if self._reserve is None:
            self._reserve = _reserve()
        if self._scratch is not None:
            self._scratch.begin_cell()
        error = self._run(source, name)
        if _getpid() != self._pid:
            _exit(0)  # the cell forked (bare permits it), and this is the child
        self._namespace.restore()
        if self._llm_batch is not None:
            self._namespace.names["llm_batch"] = self._llm_batch
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
        # `isinstance` would ask the model's own class, outside its clock.
        if failure is not None and issubclass(type(failure), MemoryError):
            self._free_reserve()
            _TRACE.__set__(failure, _without_locals(failure))
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
            error = error or f"{_CLASS_NAME.__get__(type(caught))} while the answer was read"
        if failure is not None:
            _TRACE.__set__(failure, None)
        return error

    def _report(self, number: int, error: str | None) -> bytes:
        """The frame that reports a cell: output, error, answer."""
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
        """Gives the address space held in reserve back."""
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None


def _reserve() -> mmap.mmap | None:
    """Address space held in reserve, so that a cell that used up all the rest can still be reported."""
    try:
        return mmap.mmap(-1, RESERVE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, MemoryError):
        return None


def _without_locals(error: BaseException) -> Any:
    """The traceback with its frames' variables dropped: they hold the memory that ran out."""
    trace = _TRACE.__get__(error)
    traceback.clear_frames(trace)
    gc.collect()
    return trace


def _seed(seed: int) -> None:
    """Seeds `random` and `numpy.random`: forked siblings would else all draw the same numbers."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
