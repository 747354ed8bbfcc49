"""One socket to a child: frames in, frames out with back-pressure. What the frames mean: `process.py`."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import cast

from rlm_env.repl.wire import FrameParser, ProtocolError, Scalar


class Channel(asyncio.BufferedProtocol):
    """A socket to a child. A protocol error closes it; `on_lost` gets what was wrong, or ""."""

    def __init__(
        self,
        on_frame: Callable[[list[Scalar]], None],
        on_lost: Callable[[str], None],
        max_frame: int,
        max_fields: int,
        likely: int,
    ) -> None:
        """The last three are those of `FrameParser`."""
        self._parser = FrameParser(on_frame, max_frame, max_fields, likely)
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # what asyncio makes of a stream socket

    @property
    def connected(self) -> bool:
        return self._transport is not None

    @property
    def writable(self) -> bool:
        """The child reads what it is sent."""
        return self._writable.is_set()

    @property
    def behind(self) -> bool:
        """Something that the child has sent waits to be read, and nothing holds it."""
        if self._transport is None or self._parser.held:
            return False
        if not self._transport.is_reading():  # what was read has to be taken first
            return True
        unread = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        return struct.unpack("i", unread) > (0,)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parser.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._parser.buffer_updated(nbytes):
                self._rest_later()
        except ProtocolError as error:
            self.fail(f"broke the protocol ({error})")

    def _rest_later(self) -> None:
        """Frames are left: others have their turn first, and until then nothing more is read."""
        if self._transport is not None:
            self._transport.pause_reading()
        if not self._parser.held:
            self._loop.call_soon(self._take_rest)

    def _take_rest(self) -> None:
        if self._transport is None or self._parser.held:
            return
        try:
            if self._parser.advance():
                self._rest_later()
            elif not self._transport.is_reading():
                self._transport.resume_reading()
        except ProtocolError as error:
            self.fail(f"broke the protocol ({error})")

    def hold(self, held: bool) -> None:
        """While it is held, frames that arrive stay in the child's hands, but for those that have been read."""
        if self._parser.held is not held:
            self._parser.held = held
            if not held:
                self._loop.call_soon(self._take_rest)

    def fail(self, why: str) -> None:
        """Ends the connection because of what the child did."""
        self._why = self._why or why
        self._parser.held = True
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone, or broke the protocol."""
        self._transport = None
        self._writable.set()
        self._on_lost(self._why)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    async def send(self, frame: bytes) -> None:
        """Writes as soon as the child has read what was written before."""
        while not self._writable.is_set():  # all who wait are woken at once, and the first may fill it again
            await self._writable.wait()
        self.write(frame)
        if len(frame) > 2**16:
            await asyncio.sleep(0)  # many large frames in a row must not stall the loop

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
