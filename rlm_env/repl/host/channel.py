"""One socket to a child: frames in, frames out with back-pressure. What the frames mean: `process.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from rlm_env.repl.wire import FrameParser, ProtocolError, Scalar


class Channel(asyncio.BufferedProtocol):
    """A socket to a child. A protocol error closes it; `on_lost` gets what was wrong, or ""."""

    def __init__(self, on_frame: Callable[[list[Scalar]], None], on_lost: Callable[[str], None], limit: int) -> None:
        self._parser = FrameParser(on_frame, limit)
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # what asyncio makes of a stream socket

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parser.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._parser.buffer_updated(nbytes)
        except ProtocolError as error:
            self._why = f"broke the protocol ({error})"
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
        if self._transport is not None:
            self._transport.write(frame)

    async def send(self, frame: bytes) -> None:
        """Writes as soon as the child has read what was written before."""
        await self._writable.wait()
        self.write(frame)
        if len(frame) > 2**16:
            await asyncio.sleep(0)  # many large frames in a row must not stall the loop

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
