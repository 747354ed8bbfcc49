"""The self-test of the sandbox: a forked child enters it and attacks, before any model code runs.

Fail closed: an attack that succeeds means that the isolation level does not work on this machine
(`host/isolation.py` decides). Attacks are harmless where they succeed: signal 0, a limit set to its current value.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

from rlm_env.repl.sandbox import libc
from rlm_env.repl.sandbox.enter import PreparedSandbox, enter_sandbox
from rlm_env.repl.sandbox.syscalls import machine

_fork_call, _map = os.fork, mmap.mmap
_PTRACE_GETEVENTMSG = 0x4201
_SCRATCH_NAME = "self-test"
_PTRACE = {"x86_64": 101, "aarch64": 117}


def run_self_test(sandbox: PreparedSandbox, host: int) -> dict[str, Any]:
    """{"attacks": {name: outcome}, "error": why the sandbox could not be entered, or None}; outcomes are errno names,
    or "leaked". OSError where there is no process to be had."""
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        pid = _fork_call()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:
        os.close(reading)
        result: dict[str, Any] = {"attacks": {}, "error": None}
        try:
            uid = sandbox.uids.first if sandbox.uids else None
            scratch = enter_sandbox(sandbox, parent, uid, _SCRATCH_NAME if sandbox.scratch else None)
            result["attacks"] = {name: _outcome(attack) for name, attack in attacks(host, scratch).items()}
        except BaseException as error:
            result["error"] = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if sandbox.scratch is not None and not sandbox.scratch.mounted:
        with contextlib.suppress(OSError):
            os.rmdir(f"{sandbox.scratch.base}/{_SCRATCH_NAME}")
    return json.loads(data) if data else {"attacks": {}, "error": "the self-test's process died"}


def _outcome(attack: Callable[[], object]) -> str:
    """What became of an attack: the name of its error, or "leaked"."""
    try:
        attack()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Exception as error:
        return type(error).__name__
    return "leaked"


def _fork() -> None:
    pid = _fork_call()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _execute() -> None:
    """Executes a file that does not exist: where that is permitted, the error is ENOENT."""
    try:
        os.execv("/nonexistent", ["nonexistent"])
    except FileNotFoundError:
        return


def _write_file() -> None:
    path = f"/tmp/.rlm-env-self-test-{os.getpid()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)


def _datagram() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.close()
    right.close()


def attacks(host: int, scratch: str | None) -> dict[str, Callable[[], object]]:
    """Every attack by name. `host`: the process id of the trainer, as seen from here. `scratch`: the temporary
    directory, if there is one."""
    ptrace = _PTRACE.get(machine() or "")
    zygote = os.getppid()
    found: dict[str, Callable[[], object]] = {
        "read a system file": lambda: open("/etc/passwd").close(),
        "read the host's environment": lambda: open(f"/proc/{host}/environ").close(),
        "read the zygote's memory": lambda: open(f"/proc/{zygote}/mem").close(),
        "write a file": _write_file,
        "change a mode": lambda: os.chmod("/tmp", 0o1777),
        "signal the host": lambda: os.kill(host, 0),
        "start a process": _fork,
        "execute a program": _execute,
        "open an internet socket": lambda: socket.socket(socket.AF_INET).close(),
        "open a unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "make a datagram pair": _datagram,
        "keep memory that no limit counts": lambda: _map(-1, mmap.PAGESIZE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)),
    }
    if scratch is not None:
        beside = f"{os.path.dirname(scratch)}/{os.getpid()}"
        found["write beside its own directory"] = lambda: os.close(os.open(beside, os.O_CREAT | os.O_WRONLY))
        found["make a link in its directory"] = lambda: os.symlink("/", f"{scratch}/link")
        found["make a pipe in its directory"] = lambda: os.mkfifo(f"{scratch}/pipe")
    if hasattr(resource, "prlimit"):
        found["read the host's limits"] = lambda: resource.prlimit(host, resource.RLIMIT_NOFILE)
    if hasattr(os, "sched_setaffinity"):
        found["pin the host"] = lambda: os.sched_setaffinity(host, os.sched_getaffinity(0))
    if hasattr(os, "memfd_create"):
        found["make a memory file"] = lambda: os.close(os.memfd_create("self-test"))
    if ptrace is not None:
        # Where the request is permitted, a process that is not traced answers ESRCH.
        found["trace the zygote"] = lambda: _ptrace(ptrace, zygote)
    return found


def _ptrace(call: int, pid: int) -> None:
    try:
        libc.syscall(call, _PTRACE_GETEVENTMSG, pid, 0, 0)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
