"""The parent of all REPLs: an exec'd, single-threaded process that forks one child per REPL.

It is started with an empty environment and never sees a key, a gold answer or a prompt. It imports the scientific
packages once; every child has them at no cost. This file has the start, the loop of requests, and reaping. A child goes
on in `worker.py`; the host's end is `host/zygote_client.py`.

Requests and replies are JSON objects, one per SOCK_SEQPACKET message, with descriptors attached.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from rlm_env.repl import context_file
from rlm_env.repl.bounds import MAX_ZYGOTE_MESSAGE
from rlm_env.repl.child.finders import freeze_finders
from rlm_env.repl.child.preload import SEALED, preload, preload_parts
from rlm_env.repl.child.worker import Parts, WorkerSpec, run_worker
from rlm_env.repl.sandbox import enter, libc, selftest
from rlm_env.repl.sandbox.identity import Reserved
from rlm_env.repl.sandbox.prepare import prepare_sandbox, sandbox_facts

_fork = os.fork
_HUGE_PAGE = 2 * 2**20


def run_zygote(control: socket.socket, spec: dict[str, Any]) -> NoReturn:
    """Serves until the host is gone. Children leave the loop for their own work."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.mallopt_arena_max(2)
    os.environ.clear()
    os.nice(spec["nice"])
    if spec["cpus"]:
        os.sched_setaffinity(0, spec["cpus"])
    zygote = ZygoteServer(control, spec)
    task = zygote.serve()
    while isinstance(task, GroupSpec):
        zygote.become_group(task)
        task = zygote.serve()
    if task is not None:
        run_worker(task, zygote.parts, zygote.sandbox, zygote.pid)
    os._exit(0)


@dataclass(frozen=True)
class GroupSpec:
    """For a freshly forked group zygote: the context to load, and the socket to its host."""

    control: int
    context: int
    kind: str
    size: int


class ZygoteServer:
    """The loop and what was prepared for the children."""

    def __init__(self, control: socket.socket, spec: dict[str, Any]) -> None:
        start = time.perf_counter()
        self._control = control
        self._spec = spec
        self.pid = os.getpid()
        self._serial = 0
        self._children: dict[int, int] = {}
        """Process id -> serial number."""
        self._reserved: dict[int, Reserved] = {}
        """Process id -> its user id."""
        self._loaded: Any = None
        """The context that a group shares; REPLs see it copy-on-write."""
        packages = preload(spec["preload"])
        if spec["level"] == "sealed":
            preload([*SEALED])
            preload_parts(packages)
        if spec["level"] in ("guard", "jail"):
            freeze_finders(sys.path)
        self.sandbox = prepare_sandbox(spec)
        self.parts = Parts(spec["max_output"], confined=spec["level"] != "bare", scratch=spec["scratch"] is not None)
        # Objects from here on are shared with the children for good: no collection will write to them.
        gc.collect()
        gc.freeze()
        seconds = time.perf_counter() - start
        self._send({"op": "up", "packages": packages, "seconds": seconds, **sandbox_facts(self.sandbox)})

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], fds)

    def become_group(self, group: GroupSpec) -> None:
        """In a fresh child: becomes the zygote of a group, with a context loaded that all its REPLs share."""
        enter.die_with_parent(self.pid)
        self.pid = os.getpid()
        self._control.close()
        self._control = socket.socket(fileno=group.control)
        self._children = {}
        for reserved in self._reserved.values():
            reserved.release()  # here, not in the zygote that this one comes from
        self._reserved = {}
        self._loaded = context_file.decode(group.context, group.kind, group.size)
        os.close(group.context)
        _use_huge_pages(self._loaded)
        gc.collect()
        gc.freeze()
        self._send({"op": "up", "pid": self.pid})

    def serve(self) -> WorkerSpec | GroupSpec | None:
        """Handles requests. Returns None when the host is gone, a spec in a freshly forked child."""
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == woken:
                    os.read(woken, 4096)
                    self._reap()
                    continue
                data, fds, _flags, _address = socket.recv_fds(
                    self._control, MAX_ZYGOTE_MESSAGE, 8, socket.MSG_CMSG_CLOEXEC
                )
                if not data:
                    return None
                task = self._handle(json.loads(data), fds)
                if task is not None:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    return task

    def _handle(self, request: dict[str, Any], fds: list[int]) -> WorkerSpec | GroupSpec | None:
        """Carries out one request of the host."""
        try:
            if request["op"] == "self-test":
                try:
                    result = selftest.run_self_test(self.sandbox, request["host"])
                except OSError as error:
                    result = {"errno": error.errno, "error": error.strerror}
                self._send({"op": "self-tested", "id": request["id"], **result})
                return None
            if request["op"] == "kill":
                if request["serial"] in self._children.values():
                    pid = next(p for p, s in self._children.items() if s == request["serial"])
                    os.kill(pid, request["signal"])
                return None
            return self._fork(request, fds)
        finally:
            # In the child the descriptors are still needed.
            if os.getpid() == self.pid:
                for fd in fds:
                    os.close(fd)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> WorkerSpec | GroupSpec | None:
        """Forks a REPL or a group's zygote; returns its spec in the child, None in the parent."""
        self._serial += 1
        uids, reserved = self.sandbox.uids, None
        try:
            if uids is not None and request["op"] == "fork":
                reserved = uids.reserve()
            pid = _fork()
        except OSError as error:
            if reserved is not None:
                reserved.release()
            self._send({"op": "failed", "id": request["id"], "errno": error.errno, "error": error.strerror})
            return None
        if pid:
            self._children[pid] = self._serial
            if reserved is not None:
                self._reserved[pid] = reserved
            pidfd = _pidfd(pid)
            reply = {"op": "forked", "id": request["id"], "serial": self._serial, "pid": pid}
            reply["pidfd"] = pidfd is not None
            self._send(reply, () if pidfd is None else (pidfd,))
            if pidfd is not None:
                os.close(pidfd)
            return None
        if request["op"] == "group":
            return GroupSpec(*fds, kind=request["kind"], size=request["size"])
        control, llm, *rest = fds
        return WorkerSpec(
            uid=None if reserved is None else reserved.uid(),
            control=control,
            llm=llm,
            context=rest[0] if rest else None,
            context_kind=request["kind"],
            context_size=request["size"],
            loaded=self._loaded,
            seed=request["seed"],
            has_llm=request["llm"],
            max_output=self._spec["max_output"],
            max_answer=self._spec["max_answer"],
            max_items=self._spec["max_items"],
            max_bytes=self._spec["max_bytes"],
            allow_fork=self._spec["allow_fork"],
            aliases=self._spec["aliases"],
            scratch=request["scratch"],
        )

    def _reap(self) -> None:
        """Collects children that have ended and tells the host."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            # What a REPL has forked (`fork.py`) is our child too, but only the host knows of it, and by its pid.
            serial = self._children.pop(pid, None)
            if (reserved := self._reserved.pop(pid, None)) is not None:
                reserved.release()
            self._send({"op": "exit", "serial": serial, "pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None  # an old kernel or gVisor: the zygote then signals on the host's behalf


def _use_huge_pages(value: Any) -> None:
    """Asks for huge pages behind a large str or bytes: forking then copies fewer page table entries."""
    if not isinstance(value, (str, bytes)) or sys.getsizeof(value) < 8 * _HUGE_PAGE:
        return
    begin = -(-id(value) // _HUGE_PAGE) * _HUGE_PAGE
    end = (id(value) + sys.getsizeof(value)) // _HUGE_PAGE * _HUGE_PAGE
    libc.collapse_pages(begin, end - begin)
