"""The system calls that a REPL may make, as a seccomp filter: an allow-list, compiled to BPF by hand.

Everything that is not named here is refused: EPERM for calls in the table's range, ENOSYS for newer ones (so
that libraries fall back). What is allowed is what CPython, its standard library, numpy and threads need to
compute. Creating processes, sockets, signalling others, changing limits, owners or modes is not.

Sources: `Documentation/userspace-api/seccomp_filter.rst`, `include/uapi/linux/{seccomp,filter,bpf_common}.h`.
For x86-64 and aarch64. Which *files* may be opened is `landlock.py`'s; the numbers of the calls are in `syscalls.py`.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from rlm_env.repl.sandbox import libc
from rlm_env.repl.sandbox.syscalls import AUDIT_ARCH, NEWEST, syscall_number

_ALLOWED_NAMES = """
read write readv writev pread64 pwrite64 preadv pwritev lseek dup fsync fdatasync ftruncate
copy_file_range sendfile fstat umask
munmap mprotect mremap brk msync
set_robust_list rseq membarrier set_tid_address sched_yield sched_getaffinity sched_getparam
sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority getcpu
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm
setitimer getitimer nanosleep clock_nanosleep gettimeofday time times getrusage
sysinfo uname
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
eventfd2 pipe pipe2 timerfd_create timerfd_settime timerfd_gettime signalfd4
getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid
getrlimit getrandom exit exit_group wait4 waitid restart_syscall arch_prctl
getsockname getpeername
"""
ALLOWED = tuple(_ALLOWED_NAMES.split())
"""Allowed with any argument, at every level that has a filter."""

_PATH_NAMES = """
open openat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd chdir
fchdir statfs fstatfs
"""
PATHS = tuple(_PATH_NAMES.split())
"""Calls that take a path. Allowed where Landlock says which paths, some with some arguments only; refused at level
sealed."""

SCRATCH = ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat")
"""Allowed where there is a temporary directory, and where Landlock says. Links and renames stay denied: nothing can be
led out of it, or moved about while the host counts."""

UNSUPPORTED = ("clone3",)
"""Answered ENOSYS: its arguments lie in memory, and the C library falls back to an older call."""

FCNTL = (0, 1, 2, 3, 4, 1030, 1033, 1034)
"""F_DUPFD ... F_SETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS. Not F_SETOWN, F_SETSIG, F_SETOWN_EX, with which the
kernel sends a signal to another process; and no locks, which are seen by all who can open the same file."""
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Not FIOSETOWN, FIOASYNC."""
PRCTL = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA. Not PR_SET_PDEATHSIG, PR_SET_PTRACER, PR_SET_SECCOMP."""
MADVISE = (*range(5), *range(8, 12), *range(14, 20), 22, 23, 25)
"""MADV_NORMAL ... MADV_DONTNEED, _FREE ... _DOFORK, _HUGEPAGE ... _KEEPONFORK, _POPULATE_*, _COLLAPSE. Not COLD and
PAGEOUT, which push pages of files out that others have in memory, and not MERGEABLE, by which equal pages of others can
be found."""
SOCKET_FACTS = (3, 4, 7, 8, 30, 38, 39)
"""SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_ACCEPTCONN, SO_PROTOCOL, SO_DOMAIN: what Python asks of a socket. Not
SO_PEERCRED and SO_PEERPIDFD, which tell of the host. Setting any option is refused: a larger buffer is kernel memory
that no limit of the process counts."""
MAP_SHARED_ANONYMOUS = 0x21
"""MAP_SHARED with MAP_ANONYMOUS: pages of it that are unmapped stay in memory as long as one is mapped, and no limit of
the process counts them."""
FUTEX_PRIVATE, FUTEX_OPERATION = 128, 0x7F
FUTEX_WAITS = (0, 6, 9, 11, 13)
"""FUTEX_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2."""
MSG_OOB, O_PATH = 1, 0x200000
LAST_STANDARD_SIGNAL = 31
"""Real-time signals beyond it are queued, and the queue's bound is one for all processes of a user."""
LAST_CLOCK = 0x7FFFFFFF
"""Clocks beyond are those of other processes' and threads' CPU time."""
CLONE_OF_THREADS = 0x00010F00
"""CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD: what every thread has. One without CLONE_FILES has a table of descriptors
of its own, which RLIMIT_NOFILE counts anew."""
CLONE_SIBLING = 0x00008000 | 17
"""CLONE_PARENT | SIGCHLD: the clone of `child/fork.py`."""
CLONE_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET."""
AF_UNIX, SOCK_STREAM, SOCK_TYPE_MASK = 1, 1, 0xF
CHANNELS = (3, 4)
"""The two sockets to the host. A cell that closes "every file" must not cut itself off."""

_LOAD, _JUMP, _EQUAL, _ABOVE, _ANY_BIT, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x45, 0x54, 0x06
_FARTHEST = 255
"""Instructions that a condition can jump over."""
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_IGNORE = _ERRNO  # with errno 0: to the caller it looks done
_DENY = _ERRNO | errno.EPERM
_AGAIN = _ERRNO | errno.EAGAIN
_INVALID = _ERRNO | errno.EINVAL
_MISSING = _ERRNO | errno.ENOSYS
_NR, _ARCH = 0, 4
_PID_MARK = 0x7EADBEEF


@dataclass(frozen=True)
class Filter:
    """A compiled filter; the process's own id is to be written at `pid_offsets`."""

    program: bytes
    pid_offsets: tuple[int, ...]

    def install(self, pid: int) -> None:
        """Applies the filter to the calling thread, for good. Needs no_new_privs. OSError where refused."""
        code = bytearray(self.program)
        for offset in self.pid_offsets:
            struct.pack_into("<I", code, offset, pid)
        libc.seccomp_filter(code)


def _low(argument: int) -> int:
    return 16 + 8 * argument


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    return _op(_LOAD, offset)


def _give(result: int) -> bytes:
    return _op(_RETURN, result)


def _if_equal(value: int, result: int) -> bytes:
    return _op(_EQUAL, value, 0, 1) + _give(result)


def _one_of(argument: int, values: tuple[int, ...]) -> bytes:
    """Allowed where the argument is one of `values`."""
    return _load(_low(argument)) + b"".join(_if_equal(v, _ALLOW) for v in values) + _give(_DENY)


def _none_of(argument: int, values: tuple[int, ...]) -> bytes:
    """Allowed unless the argument is one of `values`."""
    return _load(_low(argument)) + b"".join(_if_equal(v, _DENY) for v in values) + _give(_ALLOW)


def _without(argument: int, bits: int, result: int = _DENY) -> bytes:
    """Allowed unless the argument has one of these bits."""
    return _load(_low(argument)) + _op(_ANY_BIT, bits, 0, 1) + _give(result) + _give(_ALLOW)


def _without_all(argument: int, bits: int) -> bytes:
    """Allowed unless the argument has all of these bits."""
    return _load(_low(argument)) + _op(_AND, bits) + _if_equal(bits, _DENY) + _give(_ALLOW)


def _futex() -> bytes:
    """A wait on a futex that is not private to the process is answered "try again": two REPLs can map the same file,
    and one could see the other wait. The C library waits so only for the end of a thread, which it then polls."""
    operation = _load(_low(1)) + _op(_ANY_BIT, FUTEX_PRIVATE, 0, 1) + _give(_ALLOW) + _op(_AND, FUTEX_OPERATION)
    return operation + b"".join(_if_equal(wait, _AGAIN) for wait in FUTEX_WAITS) + _give(_ALLOW)


def _die_with_parent() -> bytes:
    """Allows PR_SET_PDEATHSIG with SIGKILL, which a clone has to set anew, and not its removal."""
    set_it = _load(_low(1)) + _if_equal(9, _ALLOW) + _give(_DENY)
    return _load(_low(0)) + _op(_EQUAL, 1, 0, len(set_it) // 8) + set_it


def _null(argument: int) -> bytes:
    """Allowed where a pointer argument is NULL."""
    return (
        _load(_low(argument)) + _op(_EQUAL, 0, 0, 3) + _load(_low(argument) + 4) + _if_equal(0, _ALLOW) + _give(_DENY)
    )


def _signal_itself(signal_argument: int) -> bytes:
    """Allowed for a standard signal to the process itself: at most one of each waits for a thread."""
    to_itself = _load(_low(0)) + _op(_EQUAL, _PID_MARK, 1, 0) + _give(_DENY)
    number = _load(_low(signal_argument)) + _op(_ABOVE, LAST_STANDARD_SIGNAL, 0, 1)
    return to_itself + number + _give(_DENY) + _give(_ALLOW)


def _conditional(paths: bool, allow_fork: bool) -> dict[str, bytes]:
    """The body for each call that is allowed with some arguments only; the call's number is already matched."""
    # Threads; and with allow_fork, exactly the clone of `child/fork.py`, which os.fork() is not.
    clone = _load(_low(0))
    if allow_fork:
        clone += _if_equal(CLONE_SIBLING, _ALLOW)
    clone += _op(_AND, CLONE_OF_THREADS) + _op(_EQUAL, CLONE_OF_THREADS, 1, 0) + _give(_DENY) + _load(_low(0))
    clone += _op(_ANY_BIT, CLONE_NAMESPACES, 0, 1) + _give(_DENY) + _give(_ALLOW)
    stream_pair = (
        _load(_low(0))
        + _op(_EQUAL, AF_UNIX, 1, 0)
        + _give(_DENY)
        + _load(_low(1))
        + _op(_AND, SOCK_TYPE_MASK)
        + _if_equal(SOCK_STREAM, _ALLOW)
        + _give(_DENY)
    )
    clock = _load(_low(0)) + _op(_ABOVE, LAST_CLOCK, 0, 1) + _give(_INVALID) + _give(_ALLOW)
    kept = () if allow_fork else CHANNELS  # a forked REPL puts its own sockets there
    read_limits = _load(_low(0)) + _op(_EQUAL, 0, 2, 0) + _op(_EQUAL, _PID_MARK, 1, 0) + _give(_DENY) + _null(2)
    files = {
        # O_PATH needs no permission of Landlock. Where a link leads is nobody's business: nothing seems to be one.
        "open": _without(1, O_PATH),
        "openat": _without(2, O_PATH),
        "readlink": _give(_INVALID),
        "readlinkat": _give(_INVALID),
    }
    return (files if paths else {}) | {
        "clone": clone,
        "mmap": _without_all(3, MAP_SHARED_ANONYMOUS),
        "clock_gettime": clock,
        "clock_getres": clock,
        "futex": _futex(),
        "madvise": _one_of(2, MADVISE),
        "close": _none_of(0, kept),
        # From the channels upwards it is done; a range that contains them is left alone without a word, because the
        # C library's closefrom() ends a process that it cannot satisfy.
        "close_range": _load(_low(0)) + _op(_ABOVE, max(CHANNELS), 0, 1) + _give(_ALLOW) + _give(_IGNORE),
        "dup2": _none_of(1, kept),
        "dup3": _none_of(1, kept),
        "shutdown": _none_of(0, kept),
        # Streams only: a datagram socket could be pointed at any pathname socket of the host, which Landlock
        # does not cover. For the same reason sendto takes no address, and sendmsg is not there at all.
        "socketpair": stream_pair,
        "sendto": _load(_low(3)) + _op(_ANY_BIT, MSG_OOB, 0, 1) + _give(_DENY) + _null(4),
        "recvfrom": _without(3, MSG_OOB),
        "recvmsg": _without(2, MSG_OOB),
        "getsockopt": _load(_low(1)) + _op(_EQUAL, 1, 1, 0) + _give(_DENY) + _one_of(2, SOCKET_FACTS),
        "fcntl": _one_of(1, FCNTL),
        "ioctl": _one_of(1, IOCTL),
        "prctl": _die_with_parent() + _one_of(0, PRCTL) if allow_fork else _one_of(0, PRCTL),
        "prlimit64": read_limits,
        "kill": _signal_itself(1),
        "tgkill": _signal_itself(2),
    }


def compile_filter(arch: str, *, paths: bool, allow_fork: bool = False, scratch: bool = False) -> Filter:
    """The filter for `arch`. `paths`: calls that take a path are allowed; `scratch`: those too that make and remove
    files."""
    bodies = _conditional(paths, allow_fork)
    bodies |= {name: _give(_MISSING) for name in UNSUPPORTED}
    for name in ALLOWED + (PATHS if paths else ()) + (SCRATCH if scratch else ()):
        bodies.setdefault(name, _give(_ALLOW))
    answers = [_give(_DENY)] * (NEWEST + 1)
    for name, body in bodies.items():
        nr = syscall_number(name, arch)
        if nr is not None:
            answers[nr] = body
    program = _load(_ARCH) + _op(_EQUAL, AUDIT_ARCH[arch], 1, 0) + _give(_KILL_PROCESS) + _load(_NR)
    # Newer than the table, and on x86-64 also the x32 calls (bit 30 set).
    program += _op(_ABOVE, NEWEST, 0, 1) + _give(_MISSING)
    program += _search([(nr, body) for nr, body in enumerate(answers) if not nr or body != answers[nr - 1]])
    mark = struct.pack("<I", _PID_MARK)
    offsets = tuple(i + 4 for i in range(0, len(program), 8) if program[i + 4 : i + 8] == mark)
    return Filter(program, offsets)


def _search(runs: list[tuple[int, bytes]]) -> bytes:
    """Finds the body for the loaded number by halves: one after the other, the kernel would take 0.2 ms longer over
    every filter (it tries it on each number), and longer over every call. `runs`: numbers from which on a body holds,
    ascending."""
    if len(runs) == 1:
        return runs[0][1]
    half = len(runs) // 2
    below, above = _search(runs[:half]), _search(runs[half:])
    first, length = runs[half][0], len(below) // 8
    if length > _FARTHEST:
        return _op(_ABOVE, first - 1, 0, 1) + _op(_JUMP, length) + below + above
    return _op(_ABOVE, first - 1, length, 0) + below + above
