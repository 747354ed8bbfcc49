"""Framing between host and child: what a frame is, how it is packed, and how untrusted bytes are parsed.

A frame is four bytes of length (little endian) and then a *flat* sequence of msgpack scalars: None, bool, int,
float, str, bytes. There is no nesting, so a parser needs no recursion, no frame can claim more memory than it
has bytes (times a small constant), and no object is ever built from what a child sends. Lists are written as
their items, structured values as JSON text inside a scalar. Cost is checked before work is done: a frame is refused by
its length before it is read, and by its number of fields before the next one is made; long texts travel in pieces.

What the frames mean: `host/process.py` and `host/batch_host.py` on the host, `child/worker.py` and `child/batch.py` in
the child.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, islice, repeat
from operator import add

import msgpack

Scalar = None | bool | int | float | str | bytes

HEADER = struct.Struct("<I")
MAX_FRAME = 64 * 2**20
"""Bytes of one frame's body, unless a reader sets a smaller limit."""
CHUNK = 256 * 2**10
"""Lists of items and long texts are cut into frames of about this many characters, so that no single frame stalls an
event loop."""
FIELD_ROOM = 8
"""What a field counts for besides its characters."""
JSON_WEIGHT = 4
"""What a byte of JSON counts for."""
MAX_PROMPT_FIELDS = CHUNK // FIELD_ROOM + 8
"""Fields of one frame of prompts: `chunks` makes no more."""
MAX_PROMPT_FRAME = 4 * CHUNK + 5 * MAX_PROMPT_FIELDS
"""Bytes of such a frame's body: four to a character, and the head of each field."""

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_END_VALUE = 0xFEEDFACE12345678
_END = b"\xcf" + _END_VALUE.to_bytes(8, "big")
"""Appended to a body before parsing. It comes out unchanged only where the body ended between two fields: a field that
is cut off swallows some of it, and as no later byte of it is 0xCF, what comes out then cannot be this number."""
_unpackb = msgpack.unpackb
_HEADS = tuple(bytes([0x90 + count]) for count in range(16))
"""The first byte of an array of so many items."""
_SHORT = 4096
"""Bytes of a body that is unpacked at one go, whatever its fields turn out to be."""
_FIRST_BUFFER = 8 * 2**10
_KEPT_BUFFER = 1024 * 2**10
_SLICE, _FRAME_COST = 256 * 2**10, 8 * 2**10
"""Bytes of frames that are taken in one turn of an event loop, and what a frame counts for besides its bytes."""


class ProtocolError(Exception):
    """The peer broke the framing or the order of frames. Ends that REPL, and nothing else."""


def pack(*fields: Scalar) -> bytes:
    """One frame, header included. A str must be valid Unicode (see `sanitize`), else UnicodeEncodeError."""
    packed = msgpack.packb(fields)
    assert packed is not None  # only a packer without `autoreset` returns nothing
    # A msgpack array is its items behind a header, and the items are what a frame holds.
    body = memoryview(packed)[1 if len(fields) < 16 else 3 if len(fields) < 2**16 else 5 :]
    return b"".join((HEADER.pack(len(body)), body))


def pack_any(*fields: Scalar) -> bytes:
    """`pack`, with lone surrogates replaced where there are any."""
    try:
        return pack(*fields)
    except UnicodeEncodeError:
        return pack(*(sanitize(field) if type(field) is str else field for field in fields))


def unpack(body: bytes | bytearray | memoryview) -> list[Scalar]:
    """The fields of a frame's body. Raises ProtocolError on anything that is not a flat sequence of scalars."""
    return unpack_at_most(None, body)


def unpack_likely(count: int, body: bytes | bytearray | memoryview, max_fields: int | None = None) -> list[Scalar]:
    """`unpack_at_most`, four times as fast where the body is short and has `count` fields, fewer than 16."""
    if len(body) <= _SHORT:
        try:
            # What the fields were before `pack` took the head of their array off.
            fields = _unpackb(_HEADS[count] + bytes(body), max_array_len=16, max_map_len=0, max_ext_len=0)
        except Exception:
            return unpack_at_most(max_fields, body)
        if _SCALARS.issuperset(map(type, fields)):
            return fields
    return unpack_at_most(max_fields, body)


def unpack_at_most(max_fields: int | None, body: bytes | bytearray | memoryview) -> list[Scalar]:
    """`unpack`, with a ProtocolError on more than `max_fields` fields, of which no more than that are made."""
    size = len(body)
    unpacker = msgpack.Unpacker(
        max_buffer_size=size + len(_END),
        read_size=size + len(_END),
        max_str_len=size,
        max_bin_len=size,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    try:
        unpacker.feed(body)
        if max_fields is None:
            fields = list(unpacker)
        else:
            fields = list(islice(unpacker, max_fields + 1))
            if len(fields) > max_fields:
                raise ProtocolError(f"a frame of more than {max_fields} fields")
        unpacker.feed(_END)
        end = list(unpacker)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"malformed frame: {type(error).__name__}") from None
    if end != [_END_VALUE]:
        raise ProtocolError("malformed frame: cut off within a field")
    kinds = set(map(type, fields))
    if not kinds <= _SCALARS:
        raise ProtocolError(f"malformed frame: a field is a {min(kind.__name__ for kind in kinds - _SCALARS)}")
    return fields


def sanitize(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD, so that it can be encoded anywhere."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class FrameParser:
    """Turns a stream of untrusted bytes into frames, for `asyncio.BufferedProtocol`.

    Memory is bounded by the bytes that have really arrived, not by the length that a header claims: the
    buffer of a large frame doubles as the frame comes in. `on_frame` is called once per complete frame.
    """

    def __init__(
        self,
        on_frame: Callable[[list[Scalar]], None],
        max_frame: int = MAX_FRAME,
        max_fields: int | None = None,
        likely: int = 8,
    ) -> None:
        """`likely`: how many fields most frames have."""
        self._on_frame = on_frame
        self._max_frame = max_frame
        self._max_fields = max_fields
        self._likely = likely
        self._buffer = bytearray(_FIRST_BUFFER)
        self._start = 0
        self._filled = 0
        self.held = False
        """Set by a reader that cannot take the next frame yet. `advance` goes on once it is unset."""

    def get_buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._start:
            self._drop_taken()
        if self._filled == len(self._buffer):
            self._buffer += bytes(len(self._buffer))
        return memoryview(self._buffer)[self._filled :]

    def _drop_taken(self) -> None:
        rest = memoryview(self._buffer)[self._start : self._filled]
        if len(self._buffer) > _KEPT_BUFFER and len(rest) <= _FIRST_BUFFER:
            self._buffer = bytearray(_FIRST_BUFFER)
        memoryview(self._buffer)[: len(rest)] = rest  # within one buffer, parts may overlap
        self._start, self._filled = 0, len(rest)

    def buffer_updated(self, count: int) -> bool:
        """`count` bytes were written to the last buffer. Returns and raises what `advance` does."""
        self._filled += count
        return self.advance()

    def advance(self) -> bool:
        """Takes the frames that have arrived, a slice of them. True where another one is there already: the event loop
        should have its turn before the next call. Raises ProtocolError where the bytes cannot be frames."""
        buffer, filled, left = self._buffer, self._filled, _SLICE
        while filled - self._start >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer, self._start)
            if length > self._max_frame:
                raise ProtocolError(f"a frame of {length} bytes is over the limit of {self._max_frame}")
            begin = self._start + HEADER.size
            end = begin + length
            if end > filled:
                break
            if self.held or left <= 0:
                return True
            left -= length + _FRAME_COST
            fields = unpack_likely(self._likely, memoryview(buffer)[begin:end], self._max_fields)
            self._start = end
            self._on_frame(fields)
        if self._start == filled:
            self._start = self._filled = 0
            if len(buffer) > _KEPT_BUFFER:
                self._buffer = bytearray(_FIRST_BUFFER)
        return False


def chunks(items: list[str | bytes | int]) -> list[tuple[int, list[str | bytes | int]]]:
    """Cuts `items` into (index of the first, items) groups of about CHUNK bytes; a larger item is a group by itself."""
    weights = map(len if set(map(type, items)) == {str} else item_weight, items)  # pyright: ignore[reportArgumentType]
    ends = list(accumulate(map(add, weights, repeat(FIELD_ROOM))))
    groups: list[tuple[int, list[str | bytes | int]]] = []
    start, before = 0, 0
    while start < len(items):
        end = max(bisect_right(ends, before + CHUNK + FIELD_ROOM, start), start + 1)
        groups.append((start, items[start:end]))
        start, before = end, ends[end - 1]
    return groups


def item_weight(item: str | bytes | int) -> int:
    """What an item counts for in a frame: its characters, and JSON several times, since it has to be parsed."""
    kind = type(item)
    return len(item) if kind is str else JSON_WEIGHT * len(item) if kind is bytes else 0  # pyright: ignore[reportArgumentType]
