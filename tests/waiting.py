"""Waiting in a test for what must come, however busy the machine is."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until `condition()` holds. TimeoutError where it does not come to that."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (nothing else tells)
            await asyncio.sleep(0.01)
