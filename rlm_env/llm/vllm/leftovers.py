"""Ends engines whose supervisor (`supervise.py`) was killed together with whoever would have noticed it.

The supervisor holds a lock in its scratch folder, which the kernel lets go when it dies, however it dies. Where the
lock is free, what is left of the supervisor's session and writes into its log is an orphan. Names do not tell it, since
vLLM renames its processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SCRATCH = "rlm-env-vllm-"
"""How the names of scratch folders begin."""
OWNER = "supervisor.json"
"""The locked file: the supervisor's session, device and inode of the engine's log."""
END_SECONDS = 10.0
"""For which the end of processes is waited for that got SIGKILL."""


def end_leftovers() -> None:
    """Ends all engines of this user that nobody supervises any more, and removes their scratch folders."""
    for scratch in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        end_leftover(scratch)


def end_leftover(scratch: Path) -> None:
    """The same for the engine with this scratch folder. Does nothing where its supervisor lives."""
    with contextlib.suppress(OSError, ValueError), open(scratch / OWNER) as file:
        if os.fstat(file.fileno()).st_uid != os.getuid():
            return
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError while the supervisor lives
        owner = json.load(file)
        _end_session(owner["session"], (owner["device"], owner["inode"]))
        shutil.rmtree(scratch, ignore_errors=True)


def _end_session(session: int, log: tuple[int, int]) -> None:
    """SIGKILL to all processes of a session that write into `log` (device and inode), until none is left."""
    deadline = time.monotonic() + END_SECONDS
    while orphans := list(_orphans(session, log)):
        for pid in orphans:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if _is_orphan(pid, session, log):  # asked again, now that the pid cannot become another's
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _orphans(session: int, log: tuple[int, int]) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _is_orphan(int(entry.name), session, log):
            yield int(entry.name)


def _is_orphan(pid: int, session: int, log: tuple[int, int]) -> bool:
    """Whether a process is of this session, and its stdout or stderr is the log."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, _, _, of_process, *_ = file.read().rpartition(")")[2].split()
        if int(of_process) != session or state == "Z" or pid == session:
            return False
        opened = (os.stat(f"/proc/{pid}/fd/{number}") for number in (1, 2))
        return any((found.st_dev, found.st_ino) == log for found in opened)
    except OSError:  # it has ended, or is somebody else's
        return False
