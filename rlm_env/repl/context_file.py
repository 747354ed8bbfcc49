"""How a context is sent into a REPL: once, byte for byte, in a memory file instead of through the channel.

| given                          | in the REPL                                                                    |
|--------------------------------|--------------------------------------------------------------------------------|
| str                            | the same str: CRLF and lone surrogates included                                |
| bytes, bytearray               | bytes                                                                          |
| list, tuple, dict              | the same, nested; None, bool, int, float, str, bytes, set within, any such key |
| pathlib.Path to a file         | its text where it is UTF-8, else its bytes; nothing is translated              |
| pathlib.Path to a directory    | a dict {relative path with "/": text or bytes} of the files in it, as          |
|                                | `rlm_env/context.py` lists them (`host/pool.py` reads them)                    |
| None                           | None                                                                           |

Anything else is a TypeError that names the type. Pickle goes from host to child only, and only for the types above.
"""

from __future__ import annotations

import ctypes
import errno
import io
import mmap
import os
import pickle
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_as_utf8 = ctypes.pythonapi.PyUnicode_AsUTF8AndSize
_as_utf8.restype = ctypes.c_void_p
REMEDY = (
    "a context is a str, bytes, a list or dict of JSON-like values, or a pathlib.Path; "
    "convert it first (for example str(x), x.tolist(), dataclasses.asdict(x))"
)


@dataclass
class EncodedContext:
    """A context behind a file descriptor, which any number of REPLs can map. Close it when all are open."""

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
        """Raises TypeError with the remedy."""
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"the context holds a {name}, which cannot be sent to a REPL: {REMEDY}")


def encode(context: Any) -> EncodedContext:
    """Writes `context` into a sealed memory file; a path to a file is opened, not copied.

    Raises TypeError where it is not one of the types above, IsADirectoryError for a directory (read its files first),
    FileNotFoundError where a path does not exist.
    """
    if context is None:
        return EncodedContext(None, "none", 0)
    if isinstance(context, str):
        return _store("text", _utf8(context))
    if isinstance(context, (bytes, bytearray)):
        return _store("bytes", context)
    if isinstance(context, Path):
        return _open_file(context)
    if type(context) not in (list, tuple, dict):
        kind = type(context)
        raise TypeError(f"context is a {kind.__module__}.{kind.__qualname__}: {REMEDY}")
    return _store_pickle(context)


def _utf8(text: str) -> bytes | memoryview:
    """The UTF-8 of `text`. For ASCII it is a view of the str's own memory, valid only while `text` is."""
    if not text.isascii() or type(text) is not str:
        return text.encode("utf-8", "surrogatepass")
    size = ctypes.c_ssize_t()
    address = _as_utf8(ctypes.py_object(text), ctypes.byref(size))
    return memoryview((ctypes.c_char * size.value).from_address(address)).cast("B").toreadonly()


def _store(kind: str, data: bytes | bytearray | memoryview) -> EncodedContext:
    """Writes bytes into a sealed memory file."""
    fd = _memory_file()
    view, written = memoryview(data), 0
    while written < len(view):
        written += os.write(fd, view[written:])
    return _sealed(fd, kind, len(view))


def _store_pickle(value: Any) -> EncodedContext:
    """Writes a list or dict into a sealed memory file, as a pickle."""
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
    """Forbids writing: other REPLs, and the process that replaces a dead one, map the same pages."""
    if hasattr(os, "memfd_create"):
        import fcntl

        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return EncodedContext(fd, kind, size)


def _open_file(path: Path) -> EncodedContext:
    """The file at a path itself, which is mapped and not copied."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        os.close(fd)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return EncodedContext(fd, "file", status.st_size)


def text_or_bytes(data: bytes | mmap.mmap) -> str | bytes:
    """The text of a file where it is UTF-8, else its bytes."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return bytes(data)


def decode(fd: int, kind: str, size: int) -> Any:
    """The child's side of `encode`. The descriptor can be closed afterwards."""
    if size == 0 and kind != "pickle":
        return b"" if kind == "bytes" else ""
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    with mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=flags) as data:
        if kind == "text":
            return str(data, "utf-8", "surrogatepass")
        if kind == "bytes":
            return data[:]
        if kind == "file":
            return text_or_bytes(data)
        return pickle.loads(data)
