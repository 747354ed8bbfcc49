"""Many REPLs forked from one zygote.

Opening, sharing contexts, closing. The zygote and its isolation level are `pool_zygote.py`'s; the life of one REPL is
`repl.py`'s.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Generator
from typing import Any

from rlm_env.context import folder_files, is_folder
from rlm_env.repl import context_file
from rlm_env.repl.config import ReplConfig, ReplError
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host.batch_host import Handler
from rlm_env.repl.host.isolation import SandboxReport
from rlm_env.repl.host.pool_zygote import PoolZygote
from rlm_env.repl.host.repl import Repl
from rlm_env.repl.host.resources import resource_errors
from rlm_env.repl.host.shared_context import LOADED, SharedContext

_DESCRIPTORS = 65_536
_LARGE = 2**20
"""Contexts of more characters than this are encoded in a thread."""


class ReplPool:
    """Opens REPLs. An async context manager, for one event loop."""

    def __init__(self, config: ReplConfig | None = None) -> None:
        self.config = config or ReplConfig()
        self._zygote: PoolZygote | None = None

    async def __aenter__(self) -> ReplPool:
        """Starts the zygote, unless it is started already."""
        if self._zygote is None:
            _allow_many_descriptors()
            self._zygote = await PoolZygote.start(self.config)
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        await self.close()

    @property
    def report(self) -> SandboxReport:
        """The isolation level in use and how it was chosen. ReplError before the pool is open."""
        return self._started().report

    @property
    def zygote_pid(self) -> int:
        """The process id of the zygote, the parent of every REPL. ReplError before the pool is open."""
        return self._started().pid

    def open(self, context: Any = None, llm_batch: Handler | None = None, seed: int = 0) -> _Opening:
        """A new REPL: `async with pool.open(...) as repl`, or `repl = await pool.open(...)`.

        `context`: a value that `rlm_env.repl.context_file` lists, or what `share` returned. `llm_batch`: an async
        function of a list of prompts (str or dict) that returns a list of answers (str, or SubError where there is
        none); without one the REPL has no `llm_batch`. `seed`: of `random` and `numpy.random`.
        """
        return _Opening(self, context, llm_batch, seed)

    async def share(self, context: Any) -> SharedContext:
        """Loads a context once for many REPLs (`open(context=shared)`), which share its memory."""
        return SharedContext(self._started(), await _encode(context))

    async def close(self) -> None:
        """Ends every REPL and the zygote. Safe to call twice."""
        if self._zygote is not None:
            await self._zygote.close()

    def _started(self) -> PoolZygote:
        if self._zygote is None:
            raise ReplError("the pool is not open: use `async with ReplPool(...) as pool`")
        return self._zygote

    async def _open(self, context: Any, handler: Handler | None, seed: int) -> Repl:
        """Encodes the context and forks a REPL."""
        zygote = self._started()
        if isinstance(context, SharedContext):
            return await Repl.open(context, self.config, LOADED, handler, seed)
        zygote.enter()
        return await Repl.open(zygote, self.config, await _encode(context), handler, seed)


def _allow_many_descriptors() -> None:
    """A REPL takes three or four of this process's descriptors, and the customary limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _encode(context: Any) -> EncodedContext:
    """Large contexts, and those of unknown size, are encoded in a thread."""
    small = context is None or (isinstance(context, (str, bytes, bytearray)) and len(context) < _LARGE)
    with resource_errors("the context cannot be sent to a REPL"):
        return context_file.encode(context) if small else await asyncio.to_thread(_read_and_encode, context)


def _read_and_encode(context: Any) -> EncodedContext:
    if is_folder(context):
        files = folder_files(context)
        context = {name: context_file.text_or_bytes(path.read_bytes()) for name, path in files.items()}
    return context_file.encode(context)


class _Opening:
    """The result of `ReplPool.open`: awaitable, and an async context manager."""

    def __init__(self, pool: ReplPool, *arguments: Any) -> None:
        self._pool = pool
        self._arguments = arguments
        self._repls: list[Repl] = []

    def __await__(self) -> Generator[Any, None, Repl]:
        return self._pool._open(*self._arguments).__await__()

    async def __aenter__(self) -> Repl:
        repl = await self
        self._repls.append(repl)
        return repl

    async def __aexit__(self, *_exception: Any) -> None:
        await self._repls.pop().close()
