"""Which files a REPL may read: Python's own and those of installed packages, but nothing that may hold a gold answer.

Closed are this project and every distribution that declares environments, by the files that the distribution lists:
all its top-level names, their compiled forms in `__pycache__`, its metadata. Of a distribution that lists no files only
the package of the environment is known. Eggs are closed, and what an interrupted pip left behind. Folders of packages
cannot be listed, so that the names of closed files stay unknown too; imports work by what the zygote has seen of them
(`child/finders.py`).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import sysconfig
from pathlib import Path

# Loading an extension module needs these; none of them holds a secret.
_SYSTEM_READ = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/random",
)
_LIBRARY_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_PACKAGE_DIRS = ("site-packages", "dist-packages")
_COMPILED = "__pycache__"


def python_path() -> list[str]:
    """`sys.path` of a REPL: the standard library and the site-packages of this interpreter.

    Without the current directory, PYTHONPATH and editable installs, so that the project's own tree stays outside.
    """
    paths = sysconfig.get_paths()
    standard = Path(paths["stdlib"])
    entries = [str(standard), str(standard / "lib-dynload")]
    zipped = standard.parent / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    if zipped.exists():
        entries.insert(0, str(zipped))
    for entry in (*sys.path, paths["purelib"], paths["platlib"]):
        name = Path(entry).name
        if name in _PACKAGE_DIRS and Path(entry).is_dir() and entry not in entries:
            entries.append(entry)
    return entries


def closed_names() -> set[str]:
    """Names in site-packages, up to their first dot, that are this project's or an environment's."""
    closed = {"rlm_env", "rlm_rewards"}
    for entry in importlib.metadata.entry_points(group="rlm_env.environments"):
        closed.add(entry.value.partition(":")[0].partition(".")[0].strip())
        if entry.dist is None:
            continue
        listed = (entry.dist.read_text("top_level.txt") or "").split()
        site = os.path.normpath(str(entry.dist.locate_file("")))
        for file in entry.dist.files or ():
            folder, _, rest = os.path.relpath(str(entry.dist.locate_file(file)), site).partition("/")
            if folder != "..":
                listed.append(rest if folder == _COMPILED else folder)
        closed |= {name.partition(".")[0] for name in listed if not name.endswith((".dist-info", ".egg-info"))}
    return closed - {_COMPILED, ""}


def _closed_distributions() -> set[str]:
    names = {entry.dist.name for entry in importlib.metadata.entry_points(group="rlm_env.environments") if entry.dist}
    return {_normal(name) for name in (*names, "rlm-env")}


def _normal(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def readable_paths(python: list[str]) -> list[str]:
    """Files and trees that a REPL with this `sys.path` may read."""
    closed, distributions = closed_names(), _closed_distributions()

    def is_open(path: Path) -> bool:
        if path.suffix in (".dist-info", ".egg-info"):
            return _normal(path.stem.partition("-")[0]) not in distributions
        # An egg holds packages that a REPL cannot import, and pip leaves old packages behind under names with a tilde.
        if path.suffix in (".egg", ".pth") or path.name.startswith("~"):
            return False
        # site-packages may lie within the standard library's directory
        return path.name.partition(".")[0] not in closed and path.name not in _PACKAGE_DIRS

    read = []
    for entry in python:
        path = Path(entry)
        if not path.is_dir():
            read.append(entry)
            continue
        for child in path.iterdir():
            if child.name == _COMPILED:
                files = list(child.iterdir())
                listed = [str(file) for file in files if is_open(file)]
                # One rule instead of hundreds, which every REPL would pay for as it enters its sandbox.
                whole = len(listed) == len(files) and path.name not in _PACKAGE_DIRS
                read += [str(child)] if whole else listed
            elif is_open(child):
                read.append(str(child))
    read += map(str, (Path(sys.base_prefix) / "lib").glob("libpython*"))
    read += [*_library_paths(), *_SYSTEM_READ]
    trees = set(read)
    return [path for path in read if os.path.dirname(path) not in trees]


def paths_outside(python: list[str], read: list[str]) -> list[str]:
    """What of `read` is not below the module search path `python`."""
    return [path for path in read if not any(path.startswith(f"{tree}/") for tree in python)]


def _library_paths() -> list[str]:
    """The system's shared libraries. A folder of them that is a link (on some systems lib64 is one to lib) is taken for
    what it leads to, and of one that holds more than libraries only these are read."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    found = []
    for directory in _LIBRARY_DIRS:
        real = os.path.realpath(directory)
        if real.endswith("64"):
            found.append(directory)
        elif directory.endswith("64"):
            found += map(str, Path(real).glob("lib*.so*"))
        elif multiarch:
            found.append(f"{directory}/{multiarch}")
    return found
