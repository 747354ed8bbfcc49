"""A context that several REPLs share: loaded once, in the zygote of a group, and seen by each REPL copy-on-write.

For the rollouts of one task. The group's zygote is started at first use and again where it died; it ends with the last
REPL. How the context is encoded: `context_file.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rlm_env.repl.config import ReplError
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host.pool_zygote import PoolZygote
from rlm_env.repl.host.repl import Repl
from rlm_env.repl.host.zygote_client import ZygoteClient

LOADED = EncodedContext(None, "loaded", 0)
"""The context of a REPL in a group, which has it in memory already."""


class SharedContext:
    """Made by `ReplPool.share`; pass it as `context=` to `ReplPool.open`. Close it when all REPLs are opened: the
    memory is freed with the last REPL.

    `zygote`, `enter` and `leave` are for its REPLs (it is their `ReplSource`).
    """

    def __init__(self, pool: PoolZygote, encoded: EncodedContext) -> None:
        self.repls: set[Repl] = pool.repls
        self.limits = pool.limits
        self._pool = pool
        self._encoded = encoded
        self._zygote: ZygoteClient | None = None
        self._starting = asyncio.Lock()
        self._users = 0
        self._closed = False

    async def __aenter__(self) -> SharedContext:
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """No more REPLs can be opened on it."""
        if not self._closed:
            self._closed = True
            await self._end_if_unused()

    async def zygote(self) -> ZygoteClient:
        """The group's zygote, started where there is none."""
        base = await self._pool.zygote()
        encoded = self._encoded
        if encoded.fd is None:
            return base  # there is no context to load
        async with self._starting:
            if self._zygote is None or not self._zygote.alive:
                limit = self._pool.config.start_timeout
                self._zygote = await base.fork_group(encoded.kind, encoded.size, encoded.fd, limit)
            return self._zygote

    def enter(self) -> None:
        """Counts a REPL in. ReplError after `close`."""
        if self._closed:
            raise ReplError("this shared context is closed; share the context again")
        self._users += 1

    async def leave(self) -> None:
        """Counts a REPL out; the last one ends the group's zygote."""
        self._users -= 1
        await self._end_if_unused()

    async def _end_if_unused(self) -> None:
        if self._closed and not self._users:
            self._encoded.close()
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None
