"""The user ids of REPLs, where the zygote is root: each has one of its own that no other process of the machine has.

The kernel counts threads and processes per user id, and lets processes of one id at each other. Ids are told apart by
what is unique already: the process id, and the pid namespace that it is one of. A user namespace that maps only the
customary 65,536 ids has no room for that; there, an id is taken by binding an abstract socket of its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass

_FIRST, _NAMESPACES, _PIDS = 10**8, 900, 2**22
"""Far from anybody's ids; `_PIDS` is the most that a kernel has in one namespace."""
_FEW_FIRST, _FEW = 64_000, 1000
"""Below `nobody`."""


@dataclass
class Reserved:
    """An id for a process that is to be forked. Keep it until that has ended."""

    first: int
    lock: socket.socket | None = None
    """None: the process id is added to `first`."""

    def uid(self) -> int:
        """The id, asked for by the process itself."""
        return self.first if self.lock is not None else self.first + os.getpid()

    def release(self) -> None:
        if self.lock is not None:
            self.lock.close()


class PrivateUids:
    """Ids from `first` on. `few`: `_FEW` of them, taken by name; else one for each process id."""

    def __init__(self, first: int, *, few: bool) -> None:
        self.first = first
        self._few = few
        self._next = 1

    def reserve(self) -> Reserved:
        """An id that nobody has. OSError where there is none left."""
        if not self._few:
            return Reserved(self.first)
        for _ in range(_FEW):
            uid, self._next = self.first + self._next, (self._next + 1) % _FEW
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0rlm-env-uid-{uid}")
            except OSError:
                lock.close()
                continue
            return Reserved(uid, lock)
        raise OSError(errno.EAGAIN, "no user id is left for another REPL: close some, of any pool of this machine")


def uid_schemes() -> list[PrivateUids]:
    """Ways of giving ids, the best first; none where this process is not root."""
    if os.geteuid() != 0:
        return []
    namespace = 0
    with contextlib.suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino
    first = _FIRST + namespace % _NAMESPACES * _PIDS
    return [PrivateUids(first, few=False), PrivateUids(_FEW_FIRST, few=True)]


def others_can_read(paths: list[str], uid: int) -> str | None:
    """None if a process can become user `uid` and still read Python's own modules, else why not: root's home may be
    closed to others, or the user namespace may have no other user."""
    pid = os.fork()
    if pid == 0:
        try:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            except OSError:
                os._exit(2)
            reachable = [os.access(path, os.R_OK | os.X_OK) for path in paths if path.endswith(("packages", "dynload"))]
            os._exit(0 if reachable and all(reachable) else 1)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    unreadable = "other users cannot read this Python's modules"
    return {0: None, 2: "this process cannot become another user, for example because none is mapped here"}.get(
        status, unreadable
    )
