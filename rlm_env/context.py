"""Contexts: their types, the files of a folder, the one-line description for a prompt, and the full text.

`folder_files` is the only place that decides which files of a folder belong to the context, so every scaffold answers
from the same ones; a `Folder` has chosen them before (`folder.py`). How a context is copied into a REPL is in
`repl/context_file.py`.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from pathlib import Path

from rlm_env.folder import Folder

Context = str | bytes | list | dict | Path | Folder

_CHUNK = 2**20
_NAMES_SHOWN = 10


def in_files(context: Context) -> bool:
    """True for a context that lies in files, which take time to read."""
    return isinstance(context, Path | Folder)


def is_folder(context: Context) -> bool:
    """True for a context that is a dict of files."""
    return isinstance(context, Folder) or (isinstance(context, Path) and context.is_dir())


def folder_files(folder: Path | Folder) -> dict[str, Path]:
    """The regular files below `folder`, by relative path with "/", sorted by path; of a `Folder`, the chosen ones.

    Symbolic links inside the folder are left out: they may lead anywhere on the host, and what they point to inside
    the folder is listed under its own name.
    """
    if isinstance(folder, Folder):
        return dict(folder.files)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path for path in files}


def describe_context(context: Context) -> str:
    """Type and size of a context in one line: all that the root LLM learns about it from the prompt.

    Files are read (in pieces) to tell text from bytes. Raises OSError where a path cannot be read.
    """
    if isinstance(context, str):
        return _describe_text(len(context), context.count("\n"))
    if isinstance(context, bytes):
        return f"bytes, {len(context):,} bytes"
    if isinstance(context, Path | Folder):
        return _describe_folder(context) if isinstance(context, Folder) or context.is_dir() else _describe_file(context)
    kinds = sorted({type(item).__name__ for item in (context.values() if isinstance(context, dict) else context)})
    size = len(json.dumps(context, ensure_ascii=False, default=str))
    return f"{type(context).__name__} of {len(context):,} {'/'.join(kinds) or 'items'}, {size:,} characters as JSON"


def context_text(context: Context) -> str:
    """A context as the text that a plain LLM reads; a folder becomes its files, each below its name.

    In a file of a folder that is not UTF-8 text, undecodable bytes are replaced, and its heading says "bytes". Raises
    ValueError for bytes, or a single file, that are not UTF-8: no prompt can hold them.
    """
    if isinstance(context, str):
        return context
    if isinstance(context, bytes):
        return context.decode("utf-8")
    if isinstance(context, list | dict):
        return json.dumps(context, ensure_ascii=False, default=str)
    if isinstance(context, Folder) or context.is_dir():
        return "\n\n".join(_section(name, path.read_bytes()) for name, path in folder_files(context).items())
    return context.read_bytes().decode("utf-8")


def _section(name: str, data: bytes) -> str:
    """A file of a folder in the full text: its name as a heading, then its text."""
    try:
        return f"### {_printable(name)}\n{data.decode('utf-8')}"
    except UnicodeDecodeError:
        return f"### {_printable(name)} (bytes, {len(data):,} bytes)\n{data.decode('utf-8', 'replace')}"


@dataclass(frozen=True, slots=True)
class _Scan:
    """What one pass over a file has found."""

    size: int
    """Bytes."""
    is_text: bool
    """It is UTF-8, so that the REPL holds it as a str."""
    chars: int
    newlines: int


def _scan(path: Path) -> _Scan:
    """Size, characters and lines of a file, and whether it is UTF-8 text; it is read in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = chars = newlines = 0
    is_text = True
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            size += len(data)
            try:
                text = decoder.decode(data) if is_text else ""
            except UnicodeDecodeError:
                is_text, text = False, ""
            chars += len(text)
            newlines += text.count("\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        is_text = False
    return _Scan(size, is_text, chars, newlines)


def _describe_text(chars: int, newlines: int) -> str:
    """Characters and lines of a text, in words."""
    return f"str, {chars:,} characters, {newlines + 1:,} lines"


def _describe_file(path: Path) -> str:
    """A file in words: as the text that it holds, else as bytes."""
    scan = _scan(path)
    if scan.is_text:
        return _describe_text(scan.chars, scan.newlines)
    return f"bytes, {scan.size:,} bytes (a file that is not UTF-8 text)"


def _describe_folder(folder: Path | Folder) -> str:
    """A folder in words: number of files, total size, and which of them are not text."""
    scans = {name: _scan(path) for name, path in folder_files(folder).items()}
    binary = [_printable(name) for name, scan in scans.items() if not scan.is_text]
    kind = "text" if not binary else "bytes" if len(binary) == len(scans) else "text or bytes"
    size = sum(scan.size for scan in scans.values())
    described = f"dict of file name to {kind}, {len(scans):,} files, {size:,} bytes"
    if not binary:
        return described
    more = f" and {len(binary) - _NAMES_SHOWN:,} more" if len(binary) > _NAMES_SHOWN else ""
    return f"{described}; bytes, since they are not UTF-8 text: {', '.join(binary[:_NAMES_SHOWN])}{more}"


def _printable(name: str) -> str:
    """A file name that any prompt can hold: names on disk need not be valid Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()
