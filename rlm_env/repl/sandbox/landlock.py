"""Which files a REPL may open: a Landlock ruleset, built once in the zygote and entered by every child.

The kernel takes a ruleset by its file descriptor, so the rules (one per installed package) are made once, by
`landlockpy`, and a child pays 0.2 ms for entering them; building them in each child would cost it 5 ms and more.
Source: `Documentation/userspace-api/landlock.rst`.

It denies files and directories, TCP (ABI 4), device ioctls (ABI 5), signals and abstract sockets to processes
outside (ABI 6), and what later versions add. The kernel does not check stat, chmod, chown, utime, and (before
ABI 9) pathname sockets: `seccomp.py` denies these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import landlockpy
from landlockpy import AccessFS, Scope

from rlm_env.repl.sandbox import libc

_RESTRICT_SELF = 446
"""The same number on every architecture."""
_FILES = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.TRUNCATE | AccessFS.MAKE_REG | AccessFS.REMOVE_FILE
_SCRATCH = _FILES | AccessFS.READ_DIR | AccessFS.MAKE_DIR | AccessFS.REMOVE_DIR
"""Not executing, links, sockets, pipes, devices, and moving anything."""


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none or it is switched off."""
    return landlockpy.abi_version()


def build_ruleset(read: Iterable[str], write: Iterable[str] = (), scratch: str | None = None) -> int:
    """A ruleset's file descriptor. `read`: files or trees that may be read; `write`: files that may be read and
    written; `scratch`: a tree in which files and folders may be made and removed. Missing paths are left out.

    Raises OSError where the kernel has no Landlock.
    """
    if not landlock_abi():
        raise OSError("this kernel has no Landlock, or it is switched off")
    # A new ruleset denies everything that this kernel's version knows; the rules then allow some of it.
    with landlockpy.Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as ruleset:
        for path in read:
            _allow(ruleset, path, AccessFS.READ_FILE | AccessFS.READ_DIR)
        for path in write:
            _allow(ruleset, path, AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.TRUNCATE)
        if scratch is not None:
            _allow(ruleset, scratch, _SCRATCH)
        return os.dup(ruleset.fileno())


def _allow(ruleset: landlockpy.Ruleset, path: str, rights: AccessFS) -> None:
    """Allows rights below a path; none where it does not exist."""
    if not os.path.isdir(path):
        rights &= ~AccessFS.READ_DIR
    try:
        ruleset.allow_path(path, rights)
    except FileNotFoundError:
        return


def restrict_self(ruleset: int) -> None:
    """Applies the ruleset to the calling thread, for good. Needs no_new_privs. OSError where refused."""
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
