"""Many REPLs behind one set of walls.

Covered: choosing the tier when the pool starts (or refusing), keeping a zygote running, opening and closing.
Not covered: one REPL's life (`repl.py`), the tiers themselves (`isolation.py`).
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Generator
from typing import Any

from rlm_env.repl import context_file
from rlm_env.repl.config import ReplConfig, ReplError, SandboxError
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host import isolation, jail
from rlm_env.repl.host.batch_host import Handler
from rlm_env.repl.host.isolation import SandboxReport
from rlm_env.repl.host.repl import Repl
from rlm_env.repl.host.shared_context import LOADED, SharedContext
from rlm_env.repl.host.zygote_client import Zygote

_DESCRIPTORS = 65_536
_LARGE = 2**20
"""Contexts of more characters than this are encoded in a thread."""


class ReplPool:
    """Opens REPLs. An async context manager, for one event loop; `report` says which walls stand."""

    def __init__(self, config: ReplConfig | None = None) -> None:
        self.config = config or ReplConfig()
        self.report: SandboxReport | None = None
        self._zygote: Zygote | None = None
        self._starting = asyncio.Lock()
        self._repls: set[Repl] = set()
        self._closed = False

    async def __aenter__(self) -> ReplPool:
        await self._start()
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        await self.close()

    def open(self, context: Any = None, llm_batch: Handler | None = None, seed: int = 0) -> _Opening:
        """A new REPL: `async with pool.open(...) as repl`, or `repl = await pool.open(...)`.

        `context`: a value that `rlm_env.repl.context_file` lists, or what `share` returned. `llm_batch`: an async
        function of a list of prompts (str or dict) that returns a list of answers (str, or SubError where there is
        none); without one the REPL has no `llm_batch`. `seed`: of `random` and `numpy.random`.
        """
        return _Opening(self, context, llm_batch, seed)

    async def share(self, context: Any) -> SharedContext:
        """Loads a context once for many REPLs (`open(context=shared)`), which share its memory."""
        return SharedContext(self, await _encode(context))

    async def close(self) -> None:
        """Ends every REPL and the zygote."""
        self._closed = True
        await asyncio.gather(*(repl.close() for repl in list(self._repls)))
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None

    async def _start(self) -> None:
        """Tries the tiers, best first, each with its self-test; SandboxError where none may be used."""
        _allow_many_descriptors()
        tiers, reasons = isolation.candidates(self.config)
        for tier in tiers:
            try:
                zygote, probed = await self._try(tier)
            except SandboxError as error:
                reasons[tier] = str(error)
                continue
            self._zygote = zygote
            lower = {t: f"below {tier!r}, which stands" for t in tiers if t not in reasons and t != tier}
            self.report = SandboxReport(
                tier=tier,
                layers=isolation.layers(tier, zygote.facts),
                attacks=probed["attacks"],
                not_chosen={**reasons, **lower},
                packages=zygote.facts["packages"],
            )
            return
        raise isolation.refuse(reasons)

    async def _try(self, tier: str) -> tuple[Zygote, dict[str, Any]]:
        spec = isolation.zygote_spec(self.config, tier)
        command = [sys.executable]
        if tier == "jail":
            command = [*jail.command(spec["sys_path"], spec["read"]), jail.interpreter()]
        zygote = await Zygote.start(spec, self.config.start_timeout, command)
        try:
            probed = await zygote.probe()
            if probed["error"]:
                raise SandboxError(probed["error"])
            leaked = isolation.leaks(tier, probed["attacks"])
            if leaked:
                raise SandboxError(f"the self-test got through: {', '.join(leaked)}")
        except BaseException:
            await zygote.close()
            raise
        return zygote, probed

    async def _base_zygote(self) -> Zygote:
        """The running zygote; a new one of the same tier where it has died."""
        async with self._starting:
            if self._closed or self.report is None:
                raise ReplError("the pool is not open: use `async with ReplPool(...) as pool`")
            if not self._zygote.alive:
                await self._zygote.close()
                self._zygote, _ = await self._try(self.report.tier)
            return self._zygote

    def _forget(self, repl: Repl) -> None:
        self._repls.discard(repl)

    async def _open(self, context: Any, handler: Handler | None, seed: int) -> Repl:
        if isinstance(context, SharedContext):
            context._enter()
            repl = Repl(self, LOADED, handler, seed, group=context)
        else:
            repl = Repl(self, await _encode(context), handler, seed)
        self._repls.add(repl)
        try:
            await repl._open()
        except BaseException:
            await repl.close()
            raise
        return repl


def _allow_many_descriptors() -> None:
    """A REPL takes three or four of this process's descriptors, and the customary limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _encode(context: Any) -> EncodedContext:
    """Large values are encoded in a thread, and so is what is of unknown size."""
    small = context is None or (isinstance(context, (str, bytes, bytearray)) and len(context) < _LARGE)
    return context_file.encode(context) if small else await asyncio.to_thread(context_file.encode, context)


class _Opening:
    """What `ReplPool.open` returns: awaitable, and an async context manager."""

    def __init__(self, pool: ReplPool, *arguments: Any) -> None:
        self._pool = pool
        self._arguments = arguments
        self._repl: Repl | None = None

    def __await__(self) -> Generator[Any, None, Repl]:
        return self._pool._open(*self._arguments).__await__()

    async def __aenter__(self) -> Repl:
        self._repl = await self
        return self._repl

    async def __aexit__(self, *_exception: Any) -> None:
        await self._repl.close()
