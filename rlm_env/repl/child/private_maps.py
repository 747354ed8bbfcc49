"""Anonymous memory maps without sharing: `mmap.mmap(-1, size)` where the sandbox denies shared ones.

Pages of a shared map stay in memory after they are unmapped, and no limit of the process counts them, so the filter
denies such maps (`sandbox/seccomp.py`). Python makes them by default. In a single process a private one does the same.
"""

from __future__ import annotations

import mmap
from typing import Any

_NAMES = ("flags", "prot", "access", "offset")
_READ, _BOTH = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE


class _PrivateMap(mmap.mmap):
    """`mmap.mmap`; a map of no file is private."""

    def __new__(cls, fileno: int, length: int, *arguments: Any, **named: Any) -> _PrivateMap:
        if fileno == -1:
            named |= dict(zip(_NAMES, arguments, strict=False))
            arguments = ()
            access = named.pop("access", mmap.ACCESS_DEFAULT)
            if access != mmap.ACCESS_DEFAULT:
                named["prot"] = _READ if access == mmap.ACCESS_READ else _BOTH
            flags = named.get("flags", mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            named["flags"] = flags & ~mmap.MAP_SHARED | mmap.MAP_PRIVATE
        return super().__new__(cls, fileno, length, *arguments, **named)


def use_private_maps() -> None:
    """Puts it in the place of `mmap.mmap`, in this process."""
    _PrivateMap.__name__ = _PrivateMap.__qualname__ = "mmap"
    _PrivateMap.__module__ = "mmap"
    setattr(mmap, "mmap", _PrivateMap)  # noqa: B010 (type checkers know the class that it is)
