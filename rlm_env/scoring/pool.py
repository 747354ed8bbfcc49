"""A small pool of scorer processes.

It starts with the first score. A score that breaks a limit ends its process, which is replaced; while a score is slow,
another process works for the others. Not covered: what a scorer process does (`worker.py`), which environments are
scored in one (`apart.py`).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from typing import Any

from rlm_env.environment import ScoreLimits
from rlm_env.rollout import Rollout, Score
from rlm_env.scoring.carry import NotCarried, dumps
from rlm_env.scoring.errors import REMEDY, RemoteTraceback, ScorerKilled
from rlm_env.scoring.process import ScorerProcess
from rlm_env.task import Task

SIZE = max(1, min(4, os.cpu_count() or 1))
"""Processes, apart from those that are busy with a slow score."""
MAX_SIZE = 4 * SIZE
SLOW_SECONDS = 0.5
"""A score that takes longer is slow: another process may be started for the others."""
START_SECONDS = 300.0
"""For a new process, and for an environment to be imported in it."""
PATIENCE_SECONDS = 1.0
"""For a process that has closed its connection to end: its exit status says why."""
INLINE_CHARS = 4096
"""A context up to this length is sent along."""
FETCHED = {"task": ("context",), "rollout": ("messages", "turns", "sub_calls", "context")}
"""Parts that the scorer process asks for when it needs them."""


@dataclass(slots=True)
class Job:
    """One score that somebody waits for."""

    key: tuple[int, int]
    """The environment and its version."""
    environment: bytes
    path: list[str]
    """Where its modules are found (`sys.path`)."""
    task: Task
    rollout: Rollout
    limits: ScoreLimits
    name: str
    future: Future[Score] = field(default_factory=Future)


class ScorerPool:
    """Scores jobs in scorer processes, each of which is driven by a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._drivers: set[_Driver] = set()
        self._idle = 0
        self._slow = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """`job.future` gets the score or the exception."""
        with self._changed:
            self._jobs.append(job)
            self._grow()
            self._changed.notify()

    def _grow(self) -> None:
        """One more process if jobs wait, none is idle, and not too many are at work that are not slow."""
        wanted = min(SIZE + self._slow, MAX_SIZE)
        if not self._closed and len(self._jobs) > self._idle and len(self._drivers) < wanted:
            driver = _Driver(self)
            self._drivers.add(driver)
            driver.start()

    def next_job(self, driver: _Driver) -> Job | None:
        """The next job for a driver; None if it is to end."""
        with self._changed:
            self._idle += 1
            try:
                while not self._jobs:
                    if self._closed or len(self._drivers) > SIZE + self._slow:
                        self._drivers.discard(driver)
                        return None
                    self._changed.wait()
                return self._jobs.popleft()
            finally:
                self._idle -= 1

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """While a score is slow."""
        with self._changed:
            self._slow += 1
            self._grow()
        try:
            yield
        finally:
            with self._changed:
                self._slow -= 1

    def pids(self) -> list[int]:
        """Of the processes that live."""
        with self._changed:
            return [driver.worker.pid for driver in self._drivers if driver.worker is not None]

    def abandon(self) -> None:
        """In a forked child: the processes are the parent's."""
        for driver in self._drivers:
            if driver.worker is not None:
                driver.worker.abandon()

    def close(self) -> None:
        """Ends all processes. Scores that are waited for become errors."""
        with self._changed:
            self._closed = True
            drivers, jobs = list(self._drivers), list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ScorerKilled("the scorers were closed"))
        for driver in drivers:
            worker = driver.worker
            if worker is not None:
                worker.end()


class _Driver(threading.Thread):
    """Gives jobs to one process and replaces it when it has ended."""

    def __init__(self, pool: ScorerPool) -> None:
        super().__init__(name="rlm-env scorer", daemon=True)
        self._pool = pool
        self.worker: ScorerProcess | None = None

    def run(self) -> None:
        """Scores jobs until the pool closes."""
        while (job := self._pool.next_job(self)) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = self._score(job)
            except BaseException as error:
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
            del job
        self._end()

    def _end(self, patience: float = 0.0) -> int:
        worker, self.worker = self.worker, None
        return 0 if worker is None else worker.end(patience)

    def _score(self, job: Job) -> Score:
        """Sends a job and waits for its score under the limit of time."""
        limits = job.limits
        try:
            worker = self._ready(job)
            deadline = time.monotonic() + limits.wall_seconds
            task, rollout = _parts("task", job.task), _parts("rollout", job.rollout)
            order = ("score", job.key[0], task, rollout, limits.cpu_seconds, limits.memory_bytes)
            worker.channel.send(pickle.dumps(order), deadline)
            if worker.channel.wait(min(SLOW_SECONDS, limits.wall_seconds)):
                return self._replies(worker, job, deadline)
            with self._pool.slow():
                return self._replies(worker, job, deadline)
        except TimeoutError:
            self._end()
            raise ScorerKilled(f"{job.name}: score() took more than {limits.wall_seconds:g} s{REMEDY}") from None
        except (EOFError, OSError):
            raise ScorerKilled(f"{job.name}: {_cause_of_death(self._end(PATIENCE_SECONDS), limits)}") from None

    def _ready(self, job: Job) -> ScorerProcess:
        """A living process that holds the job's environment."""
        deadline = time.monotonic() + START_SECONDS
        if self.worker is not None and not self.worker.is_alive():
            self._end()  # it died idle
        if self.worker is None:
            try:
                self.worker = ScorerProcess()
            except OSError as error:
                raise NotCarried(f"no other process can be started ({error})") from error
        worker = self.worker
        if not worker.has(job.key):
            worker.channel.send(pickle.dumps(("load", job.key, job.path, job.environment)), deadline)
            worker.add(job.key)
            try:
                self._taken(worker, pickle.loads(worker.channel.receive(deadline)), job)
            except BaseException:
                worker.versions[job.key[0]] = -1
                raise
        return worker

    def _replies(self, worker: ScorerProcess, job: Job, deadline: float) -> Score:
        """Answers what the process asks for, until it has the score."""
        while True:
            reply = pickle.loads(worker.channel.receive(deadline))
            if reply[0] != "fetch":
                return self._taken(worker, reply, job)
            _, what, name = reply
            part = getattr(job.task if what == "task" else job.rollout, name)
            worker.channel.send(dumps(part), deadline)

    def _taken(self, worker: ScorerProcess, reply: tuple[Any, ...], job: Job) -> Any:
        """The result in a reply. Raises the exception in it."""
        kind, *content = reply
        if kind == "not carried":
            raise NotCarried(content[0])
        if kind == "memory":
            self._end()  # what failed to be allocated may be missing anywhere
            limit = f"{job.limits.memory_bytes / 2**30:g} GiB of memory"
            raise ScorerKilled(f"{job.name}: score() took more than {limit}{REMEDY}")
        if kind == "raised":
            pickled, shown, text = content
            error: Any = None
            if pickled is not None:
                with contextlib.suppress(Exception):
                    error = pickle.loads(pickled)
            if not isinstance(error, Exception):
                error = RuntimeError(f"{job.name}: score() raised {shown}")
            raise error from RemoteTraceback(text)
        return content[0] if content else None


def _cause_of_death(status: int, limits: ScoreLimits) -> str:
    """Why a scorer process ended, in words."""
    if status == -signal.SIGPROF:
        return f"score() took more than {limits.cpu_seconds:g} s of processor time{REMEDY}"
    if status == -signal.SIGKILL:
        return "the scorer's process was killed, probably for want of memory"
    how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
    return f"the scorer's process {how} during score(); `score_in_process = True` scores without another process"


def _parts(what: str, value: Task | Rollout) -> bytes:
    """A task or rollout without its large parts; whole if its class is somebody else's."""
    if type(value) not in (Task, Rollout):
        return dumps(value)
    later = set(FETCHED[what])
    if isinstance(value, Task) and isinstance(value.context, str | bytes) and len(value.context) <= INLINE_CHARS:
        later.clear()
    return dumps({one.name: getattr(value, one.name) for one in fields(value) if one.name not in later})
