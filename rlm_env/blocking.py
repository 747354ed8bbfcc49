"""Runs a coroutine from code that awaits nothing: a script, or a cell of a notebook, whose event loop is running."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def run_blocking(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs `work` to its end in an event loop of its own and returns its result.

    Where an event loop is running already it does so in a thread, and the caller's loop stands still meanwhile.
    KeyboardInterrupt cancels the work, and is raised when it has ended.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[ResultT]]] = Future()

    async def announced() -> ResultT:
        task = asyncio.current_task()
        assert task is not None
        running.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1, "rlm-env") as threads:
        done = threads.submit(contextvars.copy_context().run, asyncio.run, announced())
        try:
            return done.result()
        except KeyboardInterrupt:
            loop, task = running.result()
            loop.call_soon_threadsafe(task.cancel)
            raise
