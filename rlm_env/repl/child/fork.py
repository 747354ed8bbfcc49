"""Forking a REPL from within: the child's side of `Repl.fork` and of checkpoints.

The twin is made a sibling, not a child, of the REPL (CLONE_PARENT), so that the zygote is the parent of every REPL
there is: it reaps them all, and all die with it. The filter permits exactly this clone, and no ordinary fork.
"""

from __future__ import annotations

import ctypes
import os
import signal

from rlm_env.repl.sandbox import libc
from rlm_env.repl.sandbox.syscalls import machine, number

CLONE_PARENT = 0x00008000
_python = ctypes.PyDLL(None)  # keeps the interpreter's lock over the call
_python.syscall.restype = ctypes.c_long


def clone() -> int:
    """0 in the twin, its process id in the REPL. The caller must be the only thread. OSError where refused.

    os.fork() cannot say CLONE_PARENT. What it does around the system call is done here in the same order.
    """
    call = number("clone", machine())
    flags = ctypes.c_long(CLONE_PARENT | signal.SIGCHLD)
    zero = ctypes.c_long(0)
    _python.PyOS_BeforeFork()
    pid = _python.syscall(ctypes.c_long(call), flags, zero, zero, zero, zero)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        # Of the clone's parent, which is the zygote: it ends with it.
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        return 0
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "the REPL cannot be forked")
    return pid


def take_over(fds: list[int], targets: list[int]) -> None:
    """Moves the twin's own descriptors to the numbers of those that it has inherited."""
    for fd, target in zip(fds, targets, strict=True):
        os.dup2(fd, target, inheritable=target in (1, 2))
    for fd in set(fds):
        os.close(fd)
