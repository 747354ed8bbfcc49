"""Objects on their way to a scorer process.

An environment often holds what cannot be pickled and what `score` does not need: lambdas, clients, servers. `dumps`
leaves a placeholder (`Missing`) for each. A scorer that touches one gets `NotCarried`, and the host scores in a thread
instead.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import io
import pickle
import sys
import threading
import types
from typing import Any, ClassVar, NoReturn

PROTOCOL = 5


class NotCarried(BaseException):
    """Something that could not be sent to the scorer process is needed there. No `Exception`: a scorer that catches
    everything must not turn it into a score."""


class Missing:
    """Stands for an object that could not be sent. Every use raises `NotCarried`."""

    touched: ClassVar[list[str]] = []
    """What was used since the list was last emptied, also where the scorer caught the exception."""

    def __init__(self, what: str) -> None:
        object.__setattr__(self, "_what", what)

    def _use(self, *args: object, **kwargs: object) -> NoReturn:
        """Raises NotCarried: the scorer has used what could not be sent."""
        what = object.__getattribute__(self, "_what")
        Missing.touched.append(what)
        raise NotCarried(f"score() uses {what}")

    __getattr__ = __setattr__ = __call__ = __bool__ = __len__ = __iter__ = __next__ = __contains__ = _use
    __getitem__ = __setitem__ = __eq__ = __lt__ = __enter__ = __exit__ = __repr__ = __str__ = __await__ = _use
    __add__ = __radd__ = __int__ = __float__ = __index__ = _use
    __hash__ = object.__hash__
    __class__ = property(_use)  # type: ignore[assignment]  # isinstance() must not say that it is something else


def dumps(value: Any) -> bytes:
    """The value with placeholders for what cannot be pickled. Raises NotCarried if nothing of it can be."""
    try:
        return pickle.dumps(value, PROTOCOL)
    except Exception:
        return dumps_leniently(value)


def dumps_leniently(value: Any) -> bytes:
    """Like `dumps`, without the shortcut: finalizers and objects of `__main__` are left behind, too."""
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, PROTOCOL).dump(value)
    except Exception as error:  # RecursionError, and whatever a __reduce__ may raise
        raise NotCarried(f"it cannot be pickled ({type(error).__name__}: {error})") from error
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Sends what can be made again in another process, and a Missing in place of anything else."""
        kind = type(value)
        if isinstance(value, type | types.FunctionType):
            return NotImplemented if is_importable(value) else _missing(value)
        if kind in copyreg.dispatch_table:
            return NotImplemented
        if kind in _FRESH:
            return _FRESH[kind]
        if isinstance(value, types.ModuleType):
            return importlib.import_module, (value.__name__,)
        # What ends a thread, a file or a connection when it is collected must not be copied.
        if hasattr(kind, "__del__") or not (kind.__module__ == "builtins" or is_importable(kind)):
            return _missing(value)
        try:
            return value.__reduce_ex__(PROTOCOL)
        except Exception:
            return _missing(value)


def _missing(value: Any) -> tuple[type[Missing], tuple[str]]:
    name = getattr(value, "__qualname__", None) or f"an object of {type(value).__module__}.{type(value).__qualname__}"
    return Missing, (str(name),)


_FRESH: dict[type, tuple[Any, tuple[()]]] = {type(make()): (make, ()) for make in (threading.Lock, threading.RLock)}
"""Types of which the scorer process gets a new object."""


@functools.lru_cache(maxsize=4096)
def _is_importable(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def is_importable(value: Any) -> bool:
    """True if another process finds the class or function under its name."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or module in ("__main__", "__mp_main__") or "<" in qualname:
        return False
    return _is_importable(module, qualname) is value
