"""Entering the sandbox: what a forked child does to itself before the first line of model code.

Order matters: limits and identity first, then no_new_privs, Landlock, seccomp. Every step that fails raises, and
the child then ends: there is no half-confined REPL. The rules themselves are in `landlock.py` and `seccomp.py`; what is
prepared beforehand, in the zygote, is in `prepare.py`.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
from dataclasses import dataclass

from rlm_env.repl.sandbox import landlock, libc
from rlm_env.repl.sandbox.identity import PrivateUids
from rlm_env.repl.sandbox.scratch import ScratchPlan, make_scratch
from rlm_env.repl.sandbox.seccomp import Filter
from rlm_env.repl.sandbox.syscalls import machine, required_syscall_number

MAX_OPEN_FILES = 64
MAX_THREADS = 256
UNKNOWN_SPACE = 2**30
LAST_CAPABILITY = 63
TO_CHANGE_UID = (5, 6, 7)
"""CAP_KILL (the zygote signals children of other uids), CAP_SETGID, CAP_SETUID."""
CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class PreparedSandbox:
    """Everything that a child needs to confine itself, prepared once in the zygote."""

    level: str
    ruleset: int | None
    """File descriptor of the Landlock ruleset."""
    filter: Filter | None
    memory_bytes: int
    """Address space that model code may add to what is mapped when it starts."""
    limits: tuple[tuple[int, int], ...]
    """The other limits: (which, value)."""
    uids: PrivateUids | None
    """Where the zygote is root and others can read Python."""
    shared_uid: str | None = None
    """Why there are no private uids, where the zygote is root."""
    write: tuple[str, ...] = ()
    """Files that may be written to, besides those of its own."""
    scratch: ScratchPlan | None = None
    """None: without a temporary directory."""


def enter_sandbox(sandbox: PreparedSandbox, parent: int, uid: int | None, scratch: str | None = None) -> str | None:
    """Confines the calling process, for good. `scratch`: the name for its temporary directory, whose path is returned.
    Raises OSError on the first step that fails."""
    os.setsid()
    _lower_oom_chance()
    space = address_space() + sandbox.memory_bytes
    for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        _limit(which, space)
    for which, value in sandbox.limits:
        resource.setrlimit(which, (value, value))
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    own = _make_own(sandbox.scratch, scratch)
    die_with_parent(parent)
    if sandbox.ruleset is None and sandbox.filter is None:
        return own
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if sandbox.ruleset is not None:
        landlock.restrict_self(sandbox.ruleset)
        os.close(sandbox.ruleset)
        if sandbox.scratch is not None and own is not None and not sandbox.scratch.mounted:
            # The ruleset that all REPLs share allows the folder that all their directories are in.
            only_own = landlock.build_ruleset(sandbox.scratch.reading, sandbox.write, own)
            landlock.restrict_self(only_own)
            os.close(only_own)
    if sandbox.filter is not None:
        sandbox.filter.install(os.getpid())
    return own


def _make_own(plan: ScratchPlan | None, name: str | None) -> str | None:
    """The temporary directory; the capability that mounting it takes is given up."""
    if plan is None or name is None:
        return None
    own = make_scratch(plan, name)
    if plan.mounted:
        drop_capabilities()
    return own


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process when its parent ends. Cleared by a change of uid, so it comes after that."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _lower_oom_chance() -> None:
    """Makes the kernel end REPLs first where memory runs out."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"1000")
        os.close(fd)
    except OSError:
        return  # no /proc, or an old kernel: only a preference is lost


def address_space() -> int:
    """Bytes that this process has mapped now; a generous guess where /proc does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:
            return int(statm.read(64).split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return UNKNOWN_SPACE


def _limit(which: int, value: int) -> None:
    """Sets a limit, no higher than this process may."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def resource_limits(file_bytes: int, private: bool) -> tuple[tuple[int, int], ...]:
    """The limits that do not depend on the child; none is above what this process has itself.

    `file_bytes`: size of any file that can be written to (the output memory file, or files at level bare).
    `private`: every child has its own uid, and the kernel counts processes and threads per uid.
    """
    wanted = {
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
    }
    if private:
        wanted[resource.RLIMIT_NPROC] = MAX_THREADS
    bounded = []
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        bounded.append((which, value if hard == resource.RLIM_INFINITY else min(value, hard)))
    return tuple(bounded)


def drop_capabilities(keep: tuple[int, ...] = ()) -> None:
    """Gives up all of root's capabilities but `keep`, in this process and all that it will fork."""
    arch = machine()
    if arch is None:
        return
    kept = sum(1 << capability for capability in keep)
    for capability in range(LAST_CAPABILITY + 1):
        try:
            libc.prctl(libc.PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one that this kernel knows, or not ours to drop
    header = struct.pack("<Ii", 0x20080522, 0)
    libc.syscall(required_syscall_number("capset", arch), header, struct.pack("<6I", kept, kept, 0, 0, 0, 0))
