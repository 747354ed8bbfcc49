"""The isolation level `jail`: the zygote's interpreter started by bubblewrap, in its own namespaces.

What guard denies does not even exist here: no file of the host but Python's own, no process of the host, no network
interface but a dead loopback. The layers of guard are entered inside. This file makes the command line; starting it
(`pool_zygote.py`) shows if it works on this machine.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rlm_env.repl.config import SandboxError
from rlm_env.repl.host.readable import paths_outside
from rlm_env.repl.host.scratch import jail_arguments

_SYSTEM = ("/lib64", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")
_OWN = ("child", "sandbox", "bounds.py", "context_file.py", "wire.py")
"""The parts of `rlm_env.repl` that a zygote runs; nothing else of this project is in the jail."""


def real_interpreter() -> str:
    """The interpreter itself; a venv's is a link to a place outside the jail's files."""
    return os.path.realpath(sys.executable)


def jail_command(python: list[str], read: list[str], *, scratch: bool = False) -> list[str]:
    """The words to put before the interpreter's own command line. `python`: its module search path; `read`: all that
    guard lets a REPL read; `scratch`: REPLs mount temporary directories. SandboxError where bubblewrap is missing."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("bubblewrap is not installed (Debian, Ubuntu: sudo apt-get install bubblewrap)")
    line = [bwrap, "--die-with-parent", "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    line += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL", "--dev", "/dev", "--proc", "/proc"]
    first, last = jail_arguments() if scratch else ([], [])
    line += first
    for path in dict.fromkeys([*python, *paths_outside(python, read), *_SYSTEM, real_interpreter()]):
        if not path.startswith("/dev/"):
            line += ["--ro-bind-try", path, path]
    for path in _unreadable(python, read):
        line += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
    for name in _OWN:
        path = str(Path(__file__).parents[1] / name)
        line += ["--ro-bind", path, path]
    return [*line, *last, "--chdir", "/", "--"]


def _unreadable(python: list[str], read: list[str]) -> list[Path]:
    """Entries of the module search path that no REPL may read, such as packages of this project."""
    known, whole = {*python, *read}, set(read)
    trees = [Path(tree) for tree in python if Path(tree).is_dir()]
    entries = [path for tree in trees for path in tree.iterdir()]
    compiled = [path for path in entries if path.name == "__pycache__"]
    entries = [path for path in entries if path.name != "__pycache__"]
    entries += [path for folder in compiled for path in folder.iterdir()]
    hidden = [path for path in entries if str(path) not in known and str(path.parent) not in whole]
    return [path for path in hidden if not path.is_symlink()]
