"""Ends work on SIGTERM as cleanly as on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Terminated(Exception):
    """The process was asked to end (SIGTERM)."""

    def __str__(self) -> str:
        return "terminated"


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`; SIGTERM cancels it as Ctrl-C does, so that engines are stopped and files closed.

    Raises Terminated after SIGTERM. For the main thread's event loop.
    """
    task = asyncio.ensure_future(work)
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError:
        if terminated:
            raise Terminated from None
        raise
