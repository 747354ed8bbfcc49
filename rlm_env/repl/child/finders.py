"""Imports without listing folders: what the zygote has seen of each folder of modules is what its REPLs go by.

A REPL may read the installed packages, but not list the folders that they lie in: among them are closed ones, and the
names of their files can tell something (`host/readable.py`).
"""

from __future__ import annotations

import functools
import importlib.metadata
import pkgutil
from importlib.machinery import FileFinder


def freeze_finders(paths: list[str]) -> None:
    """Reads each folder of `sys.path` once, for imports and for `importlib.metadata`, and never again."""
    for path in paths:
        finder = pkgutil.get_importer(path)
        if isinstance(finder, FileFinder):
            finder.find_spec("a module that does not exist")
            setattr(finder, "_fill_cache", lambda: None)  # noqa: B010 (private, so type checkers do not know it)
        folder = getattr(importlib.metadata, "FastPath")(path)  # noqa: B009 (as above)
        seen = folder.lookup(folder.mtime)
        setattr(folder, "lookup", functools.lru_cache(lambda _mtime, seen=seen: seen))  # noqa: B010 (as above)
