"""One pool per configuration, shared by everything in a run.

A pool costs a zygote that has imported numpy, scipy and sympy (a second, and their memory). Scaffolds and environments
of one run that use equal configurations share one pool, and with it that zygote.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import TracebackType

from rlm_env.repl.config import ReplConfig, ReplError
from rlm_env.repl.host.pool import ReplPool


class ReplPools:
    """Owns pools, one per distinct configuration. An async context manager, for one event loop."""

    def __init__(self) -> None:
        self._pools: dict[ReplConfig, ReplPool] = {}
        self._starting: defaultdict[ReplConfig, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False

    async def __aenter__(self) -> ReplPools:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, config: ReplConfig) -> ReplPool:
        """The pool of `config`, started on the first call; do not close it yourself.

        Raises SandboxError where no permitted isolation level works on this machine (the next call tries again), and
        ReplError after `close`.
        """
        async with self._starting[config]:
            self._check_open()
            if config not in self._pools:
                pool = ReplPool(config)
                await pool.__aenter__()
                if self._closed:  # meanwhile
                    await pool.close()
                self._check_open()
                self._pools[config] = pool
            return self._pools[config]

    def _check_open(self) -> None:
        if self._closed:
            raise ReplError("the pools are closed")

    async def close(self) -> None:
        """Closes every pool and all of its REPLs. Safe to call twice."""
        self._closed = True
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(pool.close() for pool in pools.values()))
