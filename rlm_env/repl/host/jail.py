"""The tier `jail`: the zygote's interpreter started by bubblewrap, in namespaces of its own.

What guard denies does not even exist here: no file of the host but Python's own, no process of the host, no network
interface but a dead loopback. The walls of guard stand within. Covered: the command line. Not covered: whether it
works here, which only starting it tells (`launch.py`).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rlm_env.repl.config import SandboxError

_SYSTEM = ("/lib64", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")


def interpreter() -> str:
    """The interpreter itself; a venv's is a link into a place that the jail does not have."""
    return os.path.realpath(sys.executable)


def command(python: list[str], read: list[str]) -> list[str]:
    """What to put before the interpreter's own command line. `python`: its module search path; `read`: all that
    guard lets a REPL read. SandboxError where bubblewrap is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("bubblewrap (`bwrap`) is not installed")
    line = [bwrap, "--die-with-parent", "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    line += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL", "--dev", "/dev", "--proc", "/proc"]
    own = str(Path(__file__).parents[1])
    libraries = [path for path in read if not any(path.startswith(f"{tree}/") for tree in python)]
    for path in dict.fromkeys([*python, *libraries, *_SYSTEM, interpreter(), own]):
        if not path.startswith("/dev/"):
            line += ["--ro-bind-try", path, path]
    return [*line, "--chdir", "/", "--"]
