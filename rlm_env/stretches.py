"""Stretches of one text in others: found in linear time, so that a stored prompt can refer to the context it quotes.

The source is indexed by the hashes of its blocks of 32 characters. Any stretch of 63 characters holds a whole block, so
every window of another text that has a block's hash is a place where a stretch may be; it is compared and extended both
ways. Blocks that occur once are tried first: they lead to the right place in a source full of repeated lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

SHORTEST = 64
"""Characters of the shortest stretch that is looked for."""
_BLOCK = 32
_CHUNK = 1 << 16
_PIECE = 1 << 20
_BASE = 0x9E3779B97F4A7C15
_TRIED = 8
"""Occurrences of a repeated block that are tried."""

Part = str | list[int]
"""Text as it is, or [start, end] of a stretch in the source."""
Found = tuple[int, int, int]
"""Offset in the text, start and end in the source."""


class Stretches:
    """One source text and its index, which takes about a byte per character of the source."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._index: _Index | None = None
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        """Hash of the source, as hex digits."""
        if not self._sha256:
            digest = hashlib.sha256()
            for start in range(0, len(self.source), _PIECE):
                digest.update(self.source[start : start + _PIECE].encode("utf-8", "surrogatepass"))
            self._sha256 = digest.hexdigest()
        return self._sha256

    def fold(self, text: str) -> list[Part]:
        """The text as parts. Joined (`unfold`), they are the text again, to the character."""
        if len(text) < SHORTEST or len(self.source) < SHORTEST:
            return [text]
        if self._index is None:
            self._index = _Index(self.source)
        parts: list[Part] = []
        at = 0
        for begin, start, end in self._found(text, self._index):
            if begin > at:
                parts.append(text[at:begin])
            parts.append([start, end])
            at = begin + end - start
        if at < len(text) or not parts:
            parts.append(text[at:])
        return parts

    def _found(self, text: str, index: _Index) -> Iterator[Found]:
        """The stretches in order, without overlap."""
        at = 0  # everything before is dealt with
        while len(text) - at >= _BLOCK:
            chunk_end = min(at + _CHUNK, len(text))
            windows, entries, single = index.candidates(text[at : chunk_end + _BLOCK - 1])
            found: list[Found] = []
            done = _Done(at)
            for window, entry in done.ahead(windows[single] + at, entries[single]):
                stretch = self._extended(text, window, index.starts[entry], done.at, len(text))
                if stretch is not None:
                    found.append(stretch)
                    done.at = _end(stretch)
            if not single.all():
                found = self._with_repeated(text, found, (at, chunk_end), windows + at, entries, index)
            yield from found
            at = max(_end(found[-1]), chunk_end) if found else chunk_end
            if chunk_end == len(text):
                return

    def _with_repeated(
        self,
        text: str,
        found: list[Found],
        span: tuple[int, int],
        windows: Any,
        entries: Any,
        index: Any,
    ) -> list[Found]:
        """Adds stretches that hold only repeated blocks, in the gaps between those that were found."""
        whole: list[Found] = []
        done = _Done(span[0])
        for stretch in [*found, None]:
            high = stretch[0] if stretch else max(span[1], done.at)
            limit = high if stretch else len(text)
            first, last = windows.searchsorted([done.at, high])
            for window, entry in done.ahead(windows[first:last], entries[first:last]):
                places = index.occurrences(entry)
                tried = [self._extended(text, window, start, done.at, limit) for start in places]
                best = max(filter(None, tried), key=lambda one: one[2] - one[1], default=None)
                if best is not None:
                    whole.append(best)
                    done.at = _end(best)
            if stretch is not None:
                whole.append(stretch)
                done.at = _end(stretch)
        return whole

    def _extended(self, text: str, window: int, start: int, low: int, high: int) -> Found | None:
        """The stretch around a block, within `low` and `high` of the text; None where it is too short."""
        source = self.source
        forward = _common(text, window, source, start, high - window)
        if forward < _BLOCK:
            return None
        backward = _common_back(text, window, source, start, window - low)
        if forward + backward < SHORTEST:
            return None
        return window - backward, start - backward, start + forward


def unfold(parts: list[Part], source: str) -> str:
    """The inverse of `Stretches.fold`."""
    return "".join(part if isinstance(part, str) else source[part[0] : part[1]] for part in parts)


class _Index:
    """The blocks of a source by their hashes."""

    def __init__(self, source: str) -> None:
        import numpy as np

        hashes = [_block_hashes(source[start : start + _PIECE]) for start in range(0, len(source) - _BLOCK + 1, _PIECE)]
        joined = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        self.hashes = joined[order]
        self.starts = [] if not len(order) else (order * _BLOCK).tolist()
        new = np.flatnonzero(np.concatenate([[True], self.hashes[1:] != self.hashes[:-1]]))
        self._counts = np.zeros(len(joined), np.int64)
        self._counts[new] = np.diff(np.append(new, len(joined)))
        bits = min(len(joined).bit_length() + 3, 26)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, bool)
        self._maybe[self.hashes >> self._shift] = True

    def candidates(self, text: str) -> tuple[Any, Any, Any]:
        """Offsets of windows of the text that have the hash of a block, the block's first entry in the index for each,
        and True for each whose block occurs once."""
        import numpy as np

        windows = _window_hashes(text)
        likely = np.flatnonzero(self._maybe[windows >> self._shift])
        entries = np.minimum(np.searchsorted(self.hashes, windows[likely]), len(self.hashes) - 1)
        same = self.hashes[entries] == windows[likely]
        entries = entries[same]
        return likely[same], entries, self._counts[entries] == 1

    def occurrences(self, entry: int) -> list[int]:
        """Offsets of the first occurrences of the block of an entry."""
        return self.starts[entry : entry + min(int(self._counts[entry]), _TRIED)]


class _Done:
    """How far a text has been dealt with."""

    def __init__(self, at: int) -> None:
        self.at = at

    def ahead(self, windows: Any, entries: Any) -> Iterator[tuple[int, int]]:
        """The candidates in order, without those that have been dealt with when it is their turn."""
        index = 0
        while True:
            index += int(windows[index:].searchsorted(self.at))
            if index >= len(windows):
                return
            yield int(windows[index]), int(entries[index])
            index += 1


def _end(found: Found) -> int:
    """The offset in the text behind a stretch."""
    return found[0] + found[2] - found[1]


def _codes(text: str) -> Any:
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)


def _block_hashes(text: str) -> Any:
    """Hashes of the whole blocks of a text, which begins at a block."""
    codes = _codes(text[: len(text) // _BLOCK * _BLOCK]).reshape(-1, _BLOCK)
    for power in _powers():
        codes = codes[:, 0::2] * power + codes[:, 1::2]
    return codes[:, 0]


def _window_hashes(text: str) -> Any:
    """Hashes of all windows of a block's length."""
    codes = _codes(text)
    for step, power in enumerate(_powers()):
        width = 1 << step
        codes = codes[: max(len(codes) - width, 0)] * power + codes[width:]
    return codes


def _powers() -> list[Any]:
    import numpy as np

    return [np.uint64(pow(_BASE, 1 << step, 1 << 64)) for step in range(_BLOCK.bit_length() - 1)]


def _common(a: str, i: int, b: str, j: int, limit: int) -> int:
    """Length of the common text from a[i] and b[j] on, at most `limit`."""
    limit = min(limit, len(a) - i, len(b) - j)
    return _longest(limit, lambda at, end: a[i + at : i + end] == b[j + at : j + end])


def _common_back(a: str, i: int, b: str, j: int, limit: int) -> int:
    """Length of the common text that ends before a[i] and b[j], at most `limit`."""
    return _longest(min(limit, i, j), lambda at, end: a[i - end : i - at] == b[j - end : j - at])


def _longest(limit: int, equal: Callable[[int, int], bool]) -> int:
    """The length up to which two texts are equal, at most `limit`; `equal(at, end)` compares a part of them. In steps
    that double while the texts are equal, and are halved where they are not."""
    length, step = 0, _BLOCK
    while length < limit:
        step = min(step, limit - length)
        if equal(length, length + step):
            length += step
            step *= 2
        elif step == 1:
            break
        else:
            step //= 2
            limit = min(limit, length + 2 * step + 1)
    return length
