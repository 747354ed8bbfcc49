"""Whole messages over a socket, between the host and one scorer process."""

from __future__ import annotations

import select
import socket
import struct
import time

_HEADER = struct.Struct("!Q")


class MessageSocket:
    """Sends and receives messages of bytes, each with its length in front. One thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Raises TimeoutError after `deadline` (of `time.monotonic`), OSError if the other side has gone."""
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(_HEADER.pack(len(message)) + message)

    def wait(self, seconds: float) -> bool:
        """True as soon as something can be received (the end of the connection, too); False after `seconds`."""
        poll = select.poll()  # select() cannot watch descriptors above 1024
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def receive(self, deadline: float | None = None) -> bytes:
        """The next message. Raises TimeoutError after `deadline`, EOFError or OSError if the other side has gone."""
        (length,) = _HEADER.unpack(self._exactly(_HEADER.size, deadline))
        return self._exactly(length, deadline)

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        message = bytearray(size)
        view, done = memoryview(message), 0
        while done < size:
            self._socket.settimeout(_left(deadline))
            got = self._socket.recv_into(view[done:])
            if not got:
                raise EOFError
            done += got
        return bytes(message)

    def close(self) -> None:
        self._socket.close()


def _left(deadline: float | None) -> float | None:
    """Seconds until the deadline. Raises TimeoutError once it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
