"""A scorer process, seen from the host: a new Python, spoken to over a socket, killed with all that it starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

from rlm_env.scoring.message_socket import MessageSocket

ENVIRONMENTS = 16
"""So many are kept in a scorer process."""
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from rlm_env.scoring.worker import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)


class ScorerProcess:
    """A scorer process, seen from the host."""

    def __init__(self) -> None:
        """Starts it. Raises OSError if that fails."""
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        try:
            # A session of its own: Ctrl-C is not for it, and what it starts ends with it.
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, str(theirs.fileno()), str(lifeline), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self.channel = MessageSocket(ours)
        self._closing = threading.Lock()
        self.versions: dict[int, int] = {}
        """Environment -> the version that it holds, in the order in which they were sent."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def has(self, key: tuple[int, int]) -> bool:
        return self.versions.get(key[0]) == key[1]

    def add(self, key: tuple[int, int]) -> None:
        """Keeps count of what the process holds."""
        self.versions.pop(key[0], None)
        while len(self.versions) >= ENVIRONMENTS:
            del self.versions[next(iter(self.versions))]
        self.versions[key[0]] = key[1]

    def end(self, patience: float = 0.0) -> int:
        """Kills it and all that it started, once it had `patience` seconds to end by itself. Returns its exit status,
        negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        self.abandon()
        return status

    def abandon(self) -> None:
        """Closes this side's descriptors; the process ends itself then."""
        with self._closing:
            if self._lifeline >= 0:
                self.channel.close()
                os.close(self._lifeline)
                self._lifeline = -1
