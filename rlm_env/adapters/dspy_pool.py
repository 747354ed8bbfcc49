"""A pool of REPLs for callers that await nothing: its event loop runs in a thread, and stays for whoever comes next.

`dspy.RLM` makes an interpreter for every question. Starting a pool takes a second (its warm parent imports scipy and
sympy), opening a REPL of it milliseconds: so all interpreters of one configuration share a pool until the program ends,
and its processes end with the program.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from rlm_env.repl import ReplConfig, ReplPool

Result = TypeVar("Result")


class SharedPool:
    """A started pool. `run` is called from any thread but its own."""

    def __init__(self, config: ReplConfig) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rlm-env", daemon=True)
        self._thread.start()
        self.pool = ReplPool(config)
        try:
            self.run(self.pool.__aenter__())
        except BaseException:
            self._stop()
            raise

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, run in the pool's loop. KeyboardInterrupt cancels it."""
        done: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return done.result()
        except KeyboardInterrupt:
            done.cancel()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


_pools: dict[tuple[int, ReplConfig], SharedPool] = {}
_making = threading.Lock()


def shared_pool(config: ReplConfig) -> SharedPool:
    """The pool of this configuration, started where there is none. ReplError where it cannot start."""
    key = (os.getpid(), config)  # a forked process has none of its parent's threads
    with _making:
        if key not in _pools:
            _pools[key] = SharedPool(config)
        return _pools[key]
