"""Errors of the host's own resources, as ReplErrors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from rlm_env.repl.config import ReplError

_REMEDIES = {
    errno.EMFILE: "this process has as many files open as it may ({limit}): close REPLs, or raise `ulimit -n`",
    errno.ENFILE: "this machine has as many files open as it can: close REPLs, or raise fs.file-max",
    errno.ENOMEM: "memory has run out: close REPLs",
    errno.ENOBUFS: "memory has run out: close REPLs",
    errno.EAGAIN: "no more processes or threads are allowed here: close REPLs, or raise `ulimit -u` or the container's "
    "pids limit",
    errno.ENOSPC: "memory files cannot grow: close REPLs, or give the machine more memory",
    errno.ENOSYS: "the kernel lacks a call that is needed (Function not implemented): use a newer one",
}


@contextlib.contextmanager
def resource_errors(what: str) -> Iterator[None]:
    """Within it, an error that is about the host's resources is raised as "`what`: why and remedy"."""
    try:
        yield
    except RuntimeError as error:
        if not is_want_of_threads(error):
            raise
        raise ReplError(f"{what}: {_REMEDIES[errno.EAGAIN]}") from error
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise ReplError(f"{what}: {in_words(error)}") from error


def in_words(error: OSError) -> str:
    """Why, and what to do where that is known; else what the error itself says."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None or error.strerror != os.strerror(error.errno or 0):
        return error.strerror or str(error)
    return remedy.format(limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def is_shortage(error: OSError) -> bool:
    """Whether something has run out, of which there may be enough later."""
    return error.errno in _REMEDIES and error.errno != errno.ENOSYS


def is_want_of_threads(error: RuntimeError) -> bool:
    """Whether this is how Python says that the system gives it no more threads."""
    return "start new thread" in str(error)
