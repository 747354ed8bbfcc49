"""Ends work on SIGTERM as cleanly as on Ctrl-C, and lets a thread come to its end first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
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


async def to_its_end(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `function` in a thread. A cancellation is raised only after it has ended, so that no update is half done."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
