"""A stored context of any size, read in pieces: a page never waits for 100 MB that nobody asked for.

The file is UTF-8 and places in it are counted in characters. The first look at a file checks its hash and notes where
every 64 KiB begin, unless it is ASCII. Not covered: writing contexts, and what refers to them (`rlm_env/contexts.py`).
"""

from __future__ import annotations

import codecs
import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path

from rlm_env.contexts import ContextError

_STEP = 1 << 16
_KEPT = 64
"""Contexts whose check is remembered."""


class StoredContext:
    """One context in a file. Making one reads the file once, at the speed of the hash."""

    def __init__(self, path: Path, sha256: str) -> None:
        """Raises ContextError where the file is missing or has another content."""
        self.path = path
        self._bytes, self._chars = [0], [0]
        digest, chars = hashlib.sha256(), 0
        try:
            with open(path, "rb") as file:
                while data := file.read(_STEP):
                    digest.update(data)
                    chars += len(data) if data.isascii() else len(data) - _continuations(data)
                    self._bytes.append(self._bytes[-1] + len(data))
                    self._chars.append(chars)
        except OSError as error:
            raise ContextError(f"{path} cannot be read: {error.strerror}") from error
        if digest.hexdigest() != sha256:
            raise ContextError(f"{path} is not the context that it was: its hash has changed")
        self.chars = chars
        if chars == self._bytes[-1]:
            self._bytes, self._chars = [0, chars], [0, chars]

    def text(self, start: int, end: int) -> str:
        """Characters [start, end), as far as there are any. Raises ContextError where the file is gone."""
        start, end = max(start, 0), min(end, self.chars)
        if start >= end:
            return ""
        ascii_only = self._bytes[-1] == self.chars
        first = start if ascii_only else bisect_right(self._chars, start) - 1
        try:
            with open(self.path, "rb") as file:
                if ascii_only:
                    return os.pread(file.fileno(), end - start, start).decode("ascii", "replace")
                last = min(bisect_right(self._chars, end - 1), len(self._bytes) - 1)
                data = os.pread(file.fileno(), self._bytes[last] - self._bytes[first] + 4, self._bytes[first])
        except OSError as error:
            raise ContextError(f"{self.path} cannot be read: {error.strerror}") from error
        decoded, _ = codecs.utf_8_decode(data[_lead(data) :], "surrogatepass", False)
        return decoded[start - self._chars[first] : end - self._chars[first]]


def _continuations(data: bytes) -> int:
    import numpy as np

    return int(np.count_nonzero((np.frombuffer(data, np.uint8) & 0xC0) == 0x80))


def _lead(data: bytes) -> int:
    """Bytes at the beginning that end a character of the piece before, where it is counted."""
    return next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0)


class StoredContexts:
    """The folder of a run's contexts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: OrderedDict[tuple[str, int, int], StoredContext] = OrderedDict()

    def get(self, sha256: str) -> StoredContext:
        """The context with this hash. Raises ContextError where it is missing or has changed."""
        if not sha256.isalnum():
            raise ContextError(f"{sha256!r} is no hash")
        path = self.folder / f"{sha256}.txt"
        try:
            facts = path.stat()
        except OSError as error:
            raise ContextError(f"{path} cannot be read: {error.strerror}") from error
        key = (sha256, facts.st_mtime_ns, facts.st_size)
        if key not in self._seen:
            self._seen[key] = StoredContext(path, sha256)
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]
