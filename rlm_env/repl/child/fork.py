"""Forking a REPL from within: the child's side of `Repl.fork` and of checkpoints.

The forked process becomes a sibling, not a child, of the REPL (CLONE_PARENT), so that the zygote is the parent of every
REPL: it reaps them all, and all die with it. The filter permits exactly this clone, and no ordinary fork.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from rlm_env.repl.sandbox import libc
from rlm_env.repl.sandbox.seccomp import CLONE_SIBLING
from rlm_env.repl.sandbox.syscalls import machine, required_syscall_number

_python = ctypes.PyDLL(None)  # keeps the interpreter's lock over the call
_python.syscall.restype = ctypes.c_long


def fork_sibling() -> int:
    """0 in the forked process, its process id in the REPL. The caller must be the only thread. OSError where refused.

    os.fork() cannot pass CLONE_PARENT. What it does around the system call is done here in the same order.
    """
    arch = machine()
    if arch is None:
        raise OSError(errno.ENOSYS, "a REPL cannot be forked on this machine")
    call = required_syscall_number("clone", arch)
    flags = ctypes.c_long(CLONE_SIBLING)
    zero = ctypes.c_long(0)
    _python.PyOS_BeforeFork()
    pid = _python.syscall(ctypes.c_long(call), flags, zero, zero, zero, zero)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        # The clone's parent is the zygote: it ends with that.
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        return 0
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "the REPL cannot be forked")
    return pid


def take_over(fds: list[int], targets: list[int]) -> None:
    """Moves the forked process's own descriptors to the numbers of those that it has inherited."""
    for fd, target in zip(fds, targets, strict=True):
        os.dup2(fd, target, inheritable=target in (1, 2))
    for fd in set(fds):
        os.close(fd)
