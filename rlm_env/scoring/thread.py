"""Scores in a thread of this process: for environments that cannot be sent to another one, or do not want to be."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from rlm_env.rollout import Score
from rlm_env.scoring.errors import REMEDY, ScorerKilled


class ThreadScorer:
    """Scores of one environment, one at a time, in a thread of this process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Score], Future[Score], threading.Event]] = queue.SimpleQueue()
        self.lost = False
        """A score took too long: the thread cannot be stopped, another one is needed."""
        threading.Thread(target=self._run, name="rlm-env scorer", daemon=True).start()

    def _run(self) -> None:
        """The thread: does one piece of work after the other."""
        while not self.lost:
            work, future, started = self._jobs.get()
            started.set()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    async def score(self, work: Callable[[], Score], seconds: float, name: str) -> Score:
        """Raises ScorerKilled if the work takes longer than `seconds`, what it raises otherwise."""
        future: Future[Score] = Future()
        started = threading.Event()
        self._jobs.put((work, future, started))
        waiting = asyncio.wrap_future(future)
        while not started.is_set():
            await asyncio.wait({waiting}, timeout=0.05)
            if self.lost and not started.is_set():
                raise ScorerKilled(f"{name}: a score before this one never ended")
        done, _ = await asyncio.wait({waiting}, timeout=seconds)
        if not done:
            self.lost = True
            raise ScorerKilled(f"{name}: score() took more than {seconds:g} s{REMEDY}")
        return waiting.result()
