"""A context that several REPLs share: loaded once, in a group zygote, and seen by each copy-on-write.

For the rollouts of one task. Covered: the group's zygote, started at first use and again where it died; its end with
the last REPL. Not covered: how the context is encoded (`context.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rlm_env.repl.config import ReplError
from rlm_env.repl.context_file import EncodedContext

if TYPE_CHECKING:
    from rlm_env.repl.host.pool import ReplPool
    from rlm_env.repl.host.zygote_client import Zygote

LOADED = EncodedContext(None, "loaded", 0)
"""What a REPL of a group is told of its context: that it has it already."""


class SharedContext:
    """Made by `ReplPool.share`; pass it as `context=` to `ReplPool.open`. Close it when all REPLs are opened: the
    memory goes with the last REPL."""

    def __init__(self, pool: ReplPool, encoded: EncodedContext) -> None:
        self._pool = pool
        self._encoded = encoded
        self._zygote: Zygote | None = None
        self._starting = asyncio.Lock()
        self._users = 0
        self._closed = False

    async def __aenter__(self) -> SharedContext:
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """No more REPLs will be opened on it."""
        if not self._closed:
            self._closed = True
            await self._end_if_unused()

    def _enter(self) -> None:
        if self._closed:
            raise ReplError("this shared context is closed; share the context again")
        self._users += 1

    async def _leave(self) -> None:
        self._users -= 1
        await self._end_if_unused()

    async def _end_if_unused(self) -> None:
        if self._closed and not self._users:
            self._encoded.close()
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None

    async def _running_zygote(self) -> Zygote:
        base = await self._pool._base_zygote()
        if self._encoded.fd is None:
            return base  # there is no context to load
        async with self._starting:
            if self._zygote is None or not self._zygote.alive:
                encoded = self._encoded
                limit = self._pool.config.start_timeout
                self._zygote = await base.group(encoded.kind, encoded.size, encoded.fd, limit)
            return self._zygote
