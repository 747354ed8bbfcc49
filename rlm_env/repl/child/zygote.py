"""The parent of all REPLs: an exec'd, single-threaded process that forks one child per REPL.

It is started with an empty environment and never sees a key, a gold answer or a prompt. It imports the scientific
packages once; every child has them at no cost. Covered: start-up, the request loop, reaping. Not covered: what a
child does (`worker.py`, `walls.py`), the host's side of the requests (`launch.py`).

Requests and replies are JSON objects, one per SOCK_SEQPACKET message, with descriptors attached.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from rlm_env.repl import context_file
from rlm_env.repl.child import worker
from rlm_env.repl.sandbox import enter, landlock, libc, selftest
from rlm_env.repl.sandbox.seccomp import compile_filter
from rlm_env.repl.sandbox.syscalls import machine

_fork = os.fork
MAX_MESSAGE = 256 * 2**10
_WARM_UP = {
    "numpy": "numpy.random.default_rng(numpy.random.seed(0)); numpy.linalg.norm(numpy.fft.fft(numpy.ones(2)))",
    "sympy": "x = sympy.Symbol('x'); str(sympy.solve(sympy.simplify('x**2 - 1'), x)); sympy.integrate(sympy.sin(x), x)",
}
"""Packages that import parts of themselves at first use: a REPL must not pay for it, and in the sealed tier cannot."""

SEALED_MODULES = """
abc argparse array ast asyncio base64 bisect binascii calendar cmath codecs collections.abc colorsys
concurrent.futures concurrent.futures.thread configparser contextlib contextvars copy csv ctypes ctypes.util
dataclasses datetime decimal difflib dis email.parser enum errno fcntl fractions functools gc getpass glob
graphlib gzip hashlib heapq hmac html html.parser http.client inspect io ipaddress itertools json keyword
linecache locale logging lzma bz2 math mmap multiprocessing multiprocessing.pool multiprocessing.context
multiprocessing.popen_fork numbers operator os pathlib pickle pickletools pkgutil platform pprint queue random
re reprlib resource sched secrets select selectors shelve shlex shutil signal socket sqlite3 ssl stat statistics
string stringprep struct subprocess symtable sysconfig tempfile textwrap threading time timeit token tokenize
traceback types typing unicodedata unittest urllib.parse urllib.request uuid warnings weakref xml.dom.minidom
xml.etree.ElementTree xml.sax zipfile zlib zoneinfo
""".split()  # noqa: SIM905
SEALED_ENCODINGS = ("ascii", "latin_1", "utf_16", "utf_32", "utf_8_sig", "cp1252", "idna", "punycode", "unicode_escape")
"""What the sealed tier imports beforehand: behind its walls no file can be opened, so nothing can be imported."""


def main(control: socket.socket, spec: dict[str, Any]) -> None:
    """Serves until the host is gone; children return from the loop into their own work."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.mallopt_arena_max(2)
    os.environ.clear()
    os.nice(spec["nice"])
    if spec["cpus"]:
        os.sched_setaffinity(0, spec["cpus"])
    zygote = Zygote(control, spec)
    task = zygote.serve()
    while isinstance(task, Group):
        zygote.become_group(task)
        task = zygote.serve()
    if task is not None:
        worker.main(task, zygote.parts, zygote.walls, zygote.pid)
    os._exit(0)


@dataclass(frozen=True)
class Group:
    """What a freshly forked group zygote is to load and whom to serve."""

    control: int
    context: int
    kind: str
    size: int


class Zygote:
    """The loop and what it prepared."""

    def __init__(self, control: socket.socket, spec: dict[str, Any]) -> None:
        start = time.perf_counter()
        self._control = control
        self._spec = spec
        self.pid = os.getpid()
        self._serial = 0
        self._children: dict[int, int] = {}
        self._loaded: Any = None
        """The context that a group shares; REPLs see it copy-on-write."""
        packages = preload(spec["preload"])
        if spec["tier"] == "sealed":
            preload([*SEALED_MODULES, *(f"encodings.{name}" for name in SEALED_ENCODINGS)])
        self.walls = prepare_walls(spec)
        walled = spec["tier"] != "bare"
        self.parts = worker.Parts(spec["max_output"], walled, allow_processes=not walled)
        # Objects from here on are shared with the children for good: no collection will write to them.
        gc.collect()
        gc.freeze()
        self._send({"op": "up", "packages": packages, "seconds": time.perf_counter() - start, **facts(self.walls)})

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], fds)

    def become_group(self, group: Group) -> None:
        """In a fresh child: a zygote of its own, with a context loaded that all its REPLs share."""
        enter.die_with_parent(self.pid)
        self.pid = os.getpid()
        self._control.close()
        self._control = socket.socket(fileno=group.control)
        self._children = {}
        self._loaded = context_file.decode(group.context, group.kind, group.size)
        os.close(group.context)
        context_file.use_huge_pages(self._loaded)
        gc.collect()
        gc.freeze()
        self._send({"op": "up", "pid": self.pid})

    def serve(self) -> worker.Job | Group | None:
        """Handles requests; None when the host is gone, a Job or a Group in a freshly forked child."""
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
                data, fds, _flags, _address = socket.recv_fds(self._control, MAX_MESSAGE, 8, socket.MSG_CMSG_CLOEXEC)
                if not data:
                    return None
                task = self._handle(json.loads(data), fds)
                if task is not None:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    return task

    def _handle(self, request: dict[str, Any], fds: list[int]) -> worker.Job | Group | None:
        try:
            if request["op"] == "probe":
                self._send({"op": "probed", "id": request["id"], **selftest.run(self.walls, request["host"])})
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

    def _fork(self, request: dict[str, Any], fds: list[int]) -> worker.Job | Group | None:
        self._serial += 1
        try:
            pid = _fork()
        except OSError as error:
            self._send({"op": "failed", "id": request["id"], "error": f"fork: {error.strerror}"})
            return None
        if pid:
            self._children[pid] = self._serial
            reply = {"op": "forked", "id": request["id"], "serial": self._serial, "pid": pid}
            pidfd = _pidfd(pid)
            self._send(reply, () if pidfd is None else (pidfd,))
            if pidfd is not None:
                os.close(pidfd)
            return None
        if request["op"] == "group":
            return Group(*fds, kind=request["kind"], size=request["size"])
        control, llm, *rest = fds
        return worker.Job(
            serial=self._serial,
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
        )

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            # A twin (`fork.py`) is our child too, but it is the host that knows it, and by its pid.
            serial = self._children.pop(pid, None)
            self._send({"op": "exit", "serial": serial, "pid": pid, "status": os.waitstatus_to_exitcode(status)})


def facts(walls: enter.Walls) -> dict[str, Any]:
    """What the report says of the walls."""
    root = os.geteuid() == 0
    if walls.private_uids is not None:
        identity = "a private uid per REPL, no capabilities"
    elif root and walls.filter is not None:
        identity = "root without capabilities: other users cannot read this Python's modules"
    elif root:
        identity = "root"
    else:
        identity = "the host's own uid"
    return {
        "pid": os.getpid(),
        "threads": threads(),
        "landlock_abi": landlock.abi(),
        "filter_length": len(walls.filter.program) // 8 if walls.filter else 0,
        "identity": identity,
        "identity_stands": not root or walls.filter is not None,
    }


def threads() -> int:
    """Threads of this process, those of C libraries included where /proc tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None  # an old kernel or gVisor: the zygote then signals on the host's behalf


def preload(names: list[str]) -> dict[str, str]:
    """Imports what is installed of `names`; {name: version, or why it is missing}."""
    # One BLAS thread per REPL, and none in the zygote: a process with threads must not be forked.
    settings = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(settings)
    found = {}
    for name in names:
        try:
            module = importlib.import_module(name)
            if name in _WARM_UP:
                exec(_WARM_UP[name], {name: module})
            found[name] = str(getattr(module, "__version__", ""))
        except Exception as error:
            found[name] = f"missing: {type(error).__name__}: {error}"[:200]
    for name in settings:
        del os.environ[name]
    return found


def prepare_walls(spec: dict[str, Any]) -> enter.Walls:
    """The ruleset and the filter of the tier, built once. Raises OSError where the machine cannot."""
    tier, arch = spec["tier"], machine()
    ruleset = None
    if tier in ("guard", "jail"):
        ruleset = landlock.build(spec["read"], spec["list"], spec["write"])
    program = None
    if tier != "bare":
        if arch is None:
            raise OSError(f"no seccomp table for {os.uname().machine}")
        program = compile_filter(arch, paths=tier != "sealed", allow_fork=spec["allow_fork"])
    uids = None
    if os.geteuid() == 0 and tier != "bare":
        fitting = (tuple(uids) for uids in spec["uids"] if selftest.others_can_read(spec["sys_path"], uids[0]))
        uids = next(fitting, None)
    if os.geteuid() == 0 and program is not None:
        enter.drop_capabilities(keep=enter.TO_CHANGE_UID if uids else ())
    return enter.Walls(
        tier=tier,
        ruleset=ruleset,
        filter=program,
        limits=enter.limits(spec["file_bytes"], private=uids is not None),
        memory_bytes=spec["memory_bytes"],
        private_uids=uids,
    )
