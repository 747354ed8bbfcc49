"""Framing between host and child: what a frame is, how it is packed, and how untrusted bytes are parsed.

A frame is four bytes of length (little endian) and then a *flat* sequence of msgpack scalars: None, bool, int,
float, str, bytes. There is no nesting, so a parser needs no recursion, no frame can claim more memory than it
has bytes (times a small constant), and no object is ever built from what a child sends. Lists are written as
their items, structured values as JSON text inside a scalar.

What the frames mean: `host/process.py` and `host/batch_host.py` on the host, `child/worker.py` and `child/batch.py` in
the child.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgpack

Scalar = None | bool | int | float | str | bytes

HEADER = struct.Struct("<I")
MAX_FRAME = 64 * 2**20
"""Bytes of one frame's body, unless a reader sets a smaller limit."""
CHUNK = 256 * 2**10
"""Item lists are cut into frames of about this many bytes, so that no single frame stalls an event loop."""

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_END_VALUE = 0xFEEDFACE12345678
_END = b"\xcf" + _END_VALUE.to_bytes(8, "big")
"""Appended to a body before parsing. It comes out unchanged only where the body ended between two fields: a field that
is cut off swallows some of it, and as no later byte of it is 0xCF, what comes out then cannot be this number."""
_FIRST_BUFFER = 8 * 2**10
_KEPT_BUFFER = 1024 * 2**10


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
        fields = list(unpacker)
        unpacker.feed(_END)
        end = list(unpacker)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"malformed frame: {type(error).__name__}") from None
    if end != [_END_VALUE]:
        raise ProtocolError("malformed frame: cut off within a field")
    for field in fields:
        if type(field) not in _SCALARS:
            raise ProtocolError(f"malformed frame: a field is a {type(field).__name__}")
    return fields


def sanitize(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD, so that it can be encoded anywhere."""
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

    def __init__(self, on_frame: Callable[[list[Scalar]], None], max_frame: int = MAX_FRAME) -> None:
        self._on_frame = on_frame
        self._max_frame = max_frame
        self._buffer = bytearray(_FIRST_BUFFER)
        self._filled = 0

    def get_buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._filled == len(self._buffer):
            self._buffer += bytes(len(self._buffer))
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, count: int) -> None:
        """`count` bytes were written to the last buffer. Raises ProtocolError where they cannot be frames."""
        self._filled += count
        start, buffer = 0, self._buffer
        while self._filled - start >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer, start)
            if length > self._max_frame:
                raise ProtocolError(f"a frame of {length} bytes is over the limit of {self._max_frame}")
            end = start + HEADER.size + length
            if end > self._filled:
                break
            self._on_frame(unpack(memoryview(buffer)[start + HEADER.size : end]))
            start = end
        if start:
            rest = bytes(memoryview(buffer)[start : self._filled])
            if len(buffer) > _KEPT_BUFFER and len(rest) <= _FIRST_BUFFER:
                self._buffer = buffer = bytearray(_FIRST_BUFFER)
            buffer[: len(rest)] = rest
            self._filled = len(rest)


def chunks(items: list[str | bytes]) -> list[tuple[int, list[str | bytes]]]:
    """Cuts `items` into (index of the first, items) groups of about CHUNK bytes; a larger item is a group by itself."""
    groups: list[tuple[int, list[str | bytes]]] = []
    size = 0
    for index, item in enumerate(items):
        if not groups or size + len(item) > CHUNK:
            groups.append((index, []))
            size = 0
        groups[-1][1].append(item)
        size += len(item) + 8
    return groups
