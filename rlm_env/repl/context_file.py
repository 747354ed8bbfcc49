"""How a context travels into a REPL: once, byte-exact, by memory file and not through the channel.

| given                          | in the REPL                                                                    |
|--------------------------------|--------------------------------------------------------------------------------|
| str                            | the same str: CRLF and lone surrogates included                                |
| bytes, bytearray               | bytes                                                                          |
| list, tuple, dict              | the same, nested; None, bool, int, float, str, bytes, set within, any such key |
| pathlib.Path to a file         | its text where it is UTF-8, else its bytes; nothing is translated              |
| pathlib.Path to a directory    | a dict {relative path with "/": text or bytes} of the regular files in it,     |
|                                | sorted by path; symbolic links are left out                                    |
| None                           | None                                                                           |

Anything else is a TypeError that names the type. Pickle goes from host to child only, and only for the types above.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_env.repl.sandbox import libc

_as_utf8 = ctypes.pythonapi.PyUnicode_AsUTF8AndSize
_as_utf8.restype = ctypes.c_void_p
_HUGE_PAGE = 2 * 2**20
REMEDY = (
    "a context is a str, bytes, a list or dict of JSON-like values, or a pathlib.Path; "
    "convert it first (for example str(x), x.tolist(), dataclasses.asdict(x))"
)


@dataclass
class EncodedContext:
    """A context as a descriptor that can be handed to any number of REPLs. Close it when all are open."""

    fd: int | None
    kind: str
    size: int

    def duplicate(self) -> EncodedContext:
        """The same context for another owner."""
        return EncodedContext(None if self.fd is None else os.dup(self.fd), self.kind, self.size)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class _Pickler(pickle.Pickler):
    """Refuses what is not plain data. Exact built-in types never reach `reducer_override`."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"the context holds a {name}, which cannot be sent to a REPL: {REMEDY}")


def encode(context: Any) -> EncodedContext:
    """Writes `context` into a sealed memory file. TypeError where it is not one of the types above;
    FileNotFoundError where a path does not exist."""
    if context is None:
        return EncodedContext(None, "none", 0)
    if isinstance(context, str):
        return _store("text", _utf8(context))
    if isinstance(context, (bytes, bytearray)):
        return _store("bytes", context)
    if isinstance(context, Path):
        if not context.is_dir():
            return _open_file(context)
        from rlm_env.context import folder_files  # here, since this module's other half runs where only `repl` is

        context = {name: _text_or_bytes(path.read_bytes()) for name, path in folder_files(context).items()}
    elif type(context) not in (list, tuple, dict):
        kind = type(context)
        raise TypeError(f"context is a {kind.__module__}.{kind.__qualname__}: {REMEDY}")
    return _store_pickle(context)


def _utf8(text: str) -> bytes | memoryview:
    """The UTF-8 of `text`, without a copy where it is ASCII: then it is what the str holds. Keep `text` meanwhile."""
    if not text.isascii() or type(text) is not str:
        return text.encode("utf-8", "surrogatepass")
    size = ctypes.c_ssize_t()
    address = _as_utf8(ctypes.py_object(text), ctypes.byref(size))
    return memoryview((ctypes.c_char * size.value).from_address(address)).cast("B").toreadonly()


def _store(kind: str, data: bytes | bytearray | memoryview) -> EncodedContext:
    fd = _memory_file()
    view, written = memoryview(data), 0
    while written < len(view):
        written += os.write(fd, view[written:])
    return _sealed(fd, kind, len(view))


def _store_pickle(value: Any) -> EncodedContext:
    fd = _memory_file()
    try:
        with io.BufferedWriter(io.FileIO(fd, "w", closefd=False), 2**20) as out:
            _Pickler(out, protocol=5).dump(value)
    except RecursionError:
        os.close(fd)
        raise ValueError("the context is nested too deeply to be sent to a REPL; flatten it") from None
    except BaseException:
        os.close(fd)
        raise
    return _sealed(fd, "pickle", os.fstat(fd).st_size)


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("context", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _sealed(fd: int, kind: str, size: int) -> EncodedContext:
    """Siblings and replacements map the same pages: nobody may write to them any more."""
    if hasattr(os, "memfd_create"):
        import fcntl

        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return EncodedContext(fd, kind, size)


def _open_file(path: Path) -> EncodedContext:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(fd).st_size
    return EncodedContext(fd, "file", size)


def _text_or_bytes(data: bytes | mmap.mmap) -> str | bytes:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return bytes(data)


def decode(fd: int, kind: str, size: int) -> Any:
    """The context, in the child; the descriptor can be closed afterwards."""
    if size == 0 and kind != "pickle":
        return b"" if kind == "bytes" else ""
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    with mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=flags) as data:
        if kind == "text":
            return str(data, "utf-8", "surrogatepass")
        if kind == "bytes":
            return data[:]
        if kind == "file":
            return _text_or_bytes(data)
        return pickle.loads(data)


def use_huge_pages(value: Any) -> None:
    """Asks for huge pages behind a large str or bytes, so that forking does not copy an entry for each small one."""
    if not isinstance(value, (str, bytes)) or sys.getsizeof(value) < 8 * _HUGE_PAGE:
        return
    begin = -(-id(value) // _HUGE_PAGE) * _HUGE_PAGE
    end = (id(value) + sys.getsizeof(value)) // _HUGE_PAGE * _HUGE_PAGE
    libc.collapse_pages(begin, end - begin)
