"""Runs a command in a new process group, and ends the whole group when the parent is gone.

Run as a script, by path, so that it starts in milliseconds and imports nothing of the project:

    python -I -S supervise.py PARENT_PID GRACE_SECONDS NICENESS LOG_PATH SCRATCH_FOLDER COMMAND...

The parent holds the other end of our standard input, a pipe. When it closes, or when the parent is no longer our
parent (it was killed, and a forked child of it still holds the pipe), the group gets SIGTERM and, after the grace
period, SIGKILL. NICENESS, 0 to 19, lowers the group's scheduling priority. The scratch folder, which is the command's
TMPDIR, is removed; until then a file in it is locked, so that `leftovers.py` can tell whether we live: if we are
killed, the command itself gets SIGKILL, but not its children. The exit status is that of the command, 128 + N if signal
N ended it. Not covered: processes that leave the group on purpose.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


def _die_with_supervisor() -> None:
    """Runs in the child before exec, so that the command ends if the supervisor itself is killed."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _lower_priority(niceness: int) -> None:
    """Lowers the priority of this process and its children. Where Linux schedules by session (autogroup), the
    session's niceness counts first."""
    os.nice(niceness)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(niceness))


def _say_that_we_live(scratch: str, log: int) -> None:
    """Locks a file of the scratch folder for as long as this process lives. It says what the command's processes have
    in common: our session, if we lead one, and the log that they write into."""
    path, opened = os.path.join(scratch, "supervisor.json"), os.fstat(log)
    lock = os.open(f"{path}.new", os.O_CREAT | os.O_WRONLY, 0o600)  # not closed, and not inherited by the command
    fcntl.flock(lock, fcntl.LOCK_EX)
    owner = {"session": os.getpid(), "device": opened.st_dev, "inode": opened.st_ino}
    os.write(lock, json.dumps(owner).encode())
    os.rename(f"{path}.new", path)  # locked from the moment at which it is there


def _group_is_empty(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _end_group(child: subprocess.Popen, grace: float) -> None:
    """SIGTERM to the group, SIGKILL after the grace period."""
    deadline = time.monotonic() + grace
    child.terminate()  # alone at first: it ends its children in order
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace / 2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()  # reaps, so that the group can become empty
            if _group_is_empty(child.pid):
                return
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGKILL)


def supervise() -> int:
    """Runs the command until it ends or the parent is gone; returns its exit status."""
    parent, grace, niceness = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    log_path, scratch, *command = sys.argv[4:]
    if niceness:
        _lower_priority(niceness)
    with open(log_path, "ab") as log:
        with contextlib.suppress(OSError):  # a full disk; the command will say it better
            _say_that_we_live(scratch, log.fileno())
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": scratch},
            process_group=0,
            preexec_fn=_die_with_supervisor,
        )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        while child.poll() is None and os.getppid() == parent:
            readable, _, _ = select.select([0], [], [], POLL_SECONDS)
            if readable and not os.read(0, 1):
                break
    finally:
        _end_group(child, grace)
        shutil.rmtree(scratch, ignore_errors=True)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(supervise())
