"""The scorer process: scores rollouts that the host sends, within limits of processor time and memory.

It is a new Python (`process.py`), never a fork of a process that holds torch, CUDA or threads. The limit of processor
time ends the process, even inside a C function; the limit of memory raises MemoryError; the host limits wall time.
Large parts of a task or rollout (the context, the turns) are fetched from the host when `score` first reads them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from rlm_env.rollout import Rollout
from rlm_env.scoring.carry import Missing, NotCarried
from rlm_env.scoring.message_socket import MessageSocket
from rlm_env.scoring.process import ENVIRONMENTS
from rlm_env.scoring.value import score
from rlm_env.task import Task


def _fetched(name: str) -> Any:
    """A property that asks the host for a part at its first use."""
    slot = f"_{name}"

    def read(self: Any) -> Any:
        if not hasattr(self, slot):
            object.__setattr__(self, slot, self._fetch(name))
        return getattr(self, slot)

    def write(self: Any, value: Any) -> None:
        object.__setattr__(self, slot, value)

    return property(read, write)


class RemoteTask(Task):
    """A task whose context is fetched on demand."""

    __slots__ = ("_context", "_fetch")
    context = _fetched("context")


class RemoteRollout(Rollout):
    """A rollout whose messages, turns, sub-calls and context are fetched on demand."""

    __slots__ = ("_context", "_fetch", "_messages", "_sub_calls", "_turns")
    messages = _fetched("messages")
    turns = _fetched("turns")
    sub_calls = _fetched("sub_calls")
    context = _fetched("context")


REMOTE: dict[str, tuple[type, type]] = {"task": (RemoteTask, Task), "rollout": (RemoteRollout, Rollout)}


class ScorerLoop:
    """Answers the host's messages one by one."""

    def __init__(self, channel: MessageSocket) -> None:
        self._channel = channel
        self._environments: dict[Any, Any] = {}

    def run(self) -> None:
        """Until the host has gone."""
        while True:
            try:
                message = pickle.loads(self._channel.receive())
            except (EOFError, OSError):
                return
            reply = self._answer(*message)
            if reply is not None:
                self._channel.send(reply)

    def _answer(self, kind: str, *message: Any) -> bytes | None:
        """Carries out one message; what it raises becomes the reply."""
        try:
            return getattr(self, f"_{kind}")(*message)
        except NotCarried as error:
            return pickle.dumps(("not carried", str(error)))
        except MemoryError:
            return pickle.dumps(("memory",))
        except Exception as error:
            text = traceback.format_exc()
            try:
                return pickle.dumps(("raised", pickle.dumps(error), repr(error), text))
            except Exception:
                return pickle.dumps(("raised", None, repr(error), text))

    def _load(self, key: Any, path: list[str], environment: bytes) -> bytes:
        """Takes an environment in."""
        sys.path[:] = path
        self._environments.pop(key[0], None)
        while len(self._environments) >= ENVIRONMENTS:
            del self._environments[next(iter(self._environments))]
        self._environments[key[0]] = _loads(environment)
        return pickle.dumps(("loaded",))

    def _score(self, key: Any, task: bytes, rollout: bytes, cpu_seconds: float, memory_bytes: int) -> bytes:
        """Scores under limits of processor time and memory."""
        environment = self._environments[key]
        arguments = [self._received("task", task), self._received("rollout", rollout)]
        Missing.touched.clear()
        with _limits(cpu_seconds, memory_bytes):
            result = score(environment, *arguments)
        if Missing.touched:
            raise NotCarried(f"score() uses {Missing.touched[0]}")
        return pickle.dumps(("scored", result))

    def _received(self, what: str, message: bytes) -> Any:
        """The task or rollout: whole if its class is not ours, else its small parts, the others to be fetched."""
        parts = _loads(message)
        remote, kind = REMOTE[what]
        if not isinstance(parts, dict):
            return parts
        made = object.__new__(remote)
        object.__setattr__(made, "_fetch", self._fetcher(what))
        for field in fields(kind):
            if field.name in parts:
                object.__setattr__(made, field.name, parts[field.name])
        return made

    def _fetcher(self, what: str) -> Callable[[str], Any]:
        def fetch(name: str) -> Any:
            self._channel.send(pickle.dumps(("fetch", what, name)))
            return _loads(self._channel.receive())

        return fetch


def _loads(message: bytes) -> Any:
    try:
        return pickle.loads(message)
    except Exception as error:
        raise NotCarried(f"it cannot be made again in another process ({type(error).__name__}: {error})") from error


@contextlib.contextmanager
def _limits(cpu_seconds: float, memory_bytes: int) -> Iterator[None]:
    """Beyond them the process is ended (SIGPROF keeps its default action) or gets a MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(OSError, ValueError):  # not on every system
        resource.setrlimit(resource.RLIMIT_DATA, (_private_bytes() + memory_bytes, hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, hard))


def _private_bytes() -> int:
    """What RLIMIT_DATA counts already, about."""
    with open("/proc/self/statm", encoding="ascii") as status:
        return int(status.read().split()[5]) * resource.getpagesize()


def _end_with_host(lifeline: int) -> None:
    """Ends this process and those that scorers started, once the host has gone."""
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main(connection: int, lifeline: int) -> None:
    """The process's life; both descriptors come from the host."""
    threading.Thread(target=_end_with_host, args=(lifeline,), daemon=True).start()
    ScorerLoop(MessageSocket(socket.socket(fileno=connection))).run()
