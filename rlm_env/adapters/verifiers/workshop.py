"""The scaffolds that harnesses play with, one per configuration and event loop, on shared pools of REPLs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from rlm_env.adapters.verifiers.source import TaskSource
from rlm_env.repl import ReplPools
from rlm_env.scaffolds import make_scaffold
from rlm_env.scaffolds.base import Scaffold


class Workshop:
    """Scaffolds of one event loop, made when they are first needed."""

    def __init__(self) -> None:
        self.claims = 0
        """How many environments of verifiers are being served."""
        self.without_tools: set[str] = set()
        """Engines that have refused tools."""
        self._pools = ReplPools()
        self._scaffolds: dict[tuple[int, str, str], Scaffold] = {}

    def scaffold(self, name: str, source: TaskSource, options: Mapping[str, Any]) -> Scaffold:
        """The scaffold of that name on an environment. Raises what `make_scaffold` raises."""
        key = id(source), name, json.dumps(options, sort_keys=True, default=str)
        if key not in self._scaffolds:
            self._scaffolds[key] = make_scaffold(name, source.environment, options, pools=self._pools)
        return self._scaffolds[key]

    async def aclose(self) -> None:
        """Closes scaffolds, what their environments hold, and all REPLs."""
        scaffolds, self._scaffolds = self._scaffolds, {}
        await asyncio.gather(*(scaffold.aclose() for scaffold in scaffolds.values()))
        await self._pools.close()


_workshops: dict[asyncio.AbstractEventLoop, Workshop] = {}


def workshop() -> Workshop:
    """That of the running event loop."""
    for loop in [loop for loop in _workshops if loop.is_closed()]:
        del _workshops[loop]
    return _workshops.setdefault(asyncio.get_running_loop(), Workshop())


def claim_workshop() -> None:
    """Keeps that of the running event loop open until `release_workshop`."""
    workshop().claims += 1


async def release_workshop() -> None:
    """Closes that of the running event loop, unless somebody else keeps it open."""
    loop = asyncio.get_running_loop()
    found = workshop()
    found.claims -= 1
    if found.claims <= 0:
        del _workshops[loop]
        await found.aclose()
