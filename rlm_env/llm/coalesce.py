"""Joins items that are submitted within a few milliseconds into groups that are sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Coalescer(Generic[ItemT, ResultT]):
    """Collects items of equal key and hands each group to `send`, which returns one result per item, in order.

    A group is sent `seconds` after its first item, or at once when it has `largest` items. A caller that is cancelled
    leaves the group; the group itself is cancelled when no caller is left.
    """

    def __init__(
        self, send: Callable[[list[ItemT]], Awaitable[list[ResultT]]], *, seconds: float, largest: int
    ) -> None:
        self._send = send
        self._seconds = seconds
        self._largest = largest
        self._open: dict[Hashable, list[tuple[ItemT, asyncio.Future[ResultT]]]] = {}
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, key: Hashable, item: ItemT) -> ResultT:
        """The item's result. An exception that `send` raises is raised for every item of the group."""
        loop = asyncio.get_running_loop()
        key = (id(loop), key)  # futures of different loops never share a group
        future: asyncio.Future[ResultT] = loop.create_future()
        group = self._open.setdefault(key, [])
        group.append((item, future))
        if len(group) >= self._largest:
            self._flush(key)
        elif len(group) == 1:
            self._timers[key] = loop.call_later(self._seconds, self._flush, key)
        return await future

    def _flush(self, key: Hashable) -> None:
        """Sends the group of a key."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        group = [(item, future) for item, future in self._open.pop(key, ()) if not future.done()]
        if not group:
            return
        task = asyncio.ensure_future(self._deliver(group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def leave(_: asyncio.Future[ResultT]) -> None:
            if all(future.cancelled() for _, future in group):
                task.cancel()

        for _, future in group:
            future.add_done_callback(leave)

    async def _deliver(self, group: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        """Sends a group and hands each item its result."""
        try:
            results = await self._send([item for item, _ in group])
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    if isinstance(error, asyncio.CancelledError):
                        future.cancel()
                    else:
                        future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)
