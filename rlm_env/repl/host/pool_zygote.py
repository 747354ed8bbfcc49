"""The zygote behind a pool: started at the best isolation level that works here, replaced where it has died."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from rlm_env.repl.config import ReplConfig, ReplError, SandboxError
from rlm_env.repl.host import isolation, jail
from rlm_env.repl.host.isolation import SandboxReport
from rlm_env.repl.host.pool_limits import PoolLimits
from rlm_env.repl.host.repl import Repl
from rlm_env.repl.host.scratch import ScratchBase
from rlm_env.repl.host.zygote_client import ZygoteClient


class PoolZygote:
    """The `ReplSource` of a pool: its zygote, and the REPLs that are open."""

    def __init__(
        self, config: ReplConfig, report: SandboxReport, zygote: ZygoteClient, scratch: ScratchBase | None
    ) -> None:
        self.config = config
        self.report = report
        self.repls: set[Repl] = set()
        self.limits = PoolLimits(config, scratch)
        self._zygote = zygote
        self._starting = asyncio.Lock()
        self._closed = False

    @classmethod
    async def start(cls, config: ReplConfig) -> PoolZygote:
        """Tries the isolation levels, best first, each with its self-test. SandboxError where none may be used."""
        levels, reasons = isolation.candidate_levels(config)
        for level in levels:
            try:
                scratch = ScratchBase(level) if config.tmp_mb else None
            except OSError as error:
                reasons[level] = f"no temporary directories can be made here: {error}"
                continue
            try:
                zygote, attacks = await _start_zygote(config, level, scratch)
            except BaseException as error:
                if scratch is not None:
                    scratch.close()
                if not isinstance(error, SandboxError):
                    raise
                reasons[level] = str(error)
                continue
            lower = levels[levels.index(level) + 1 :]
            report = SandboxReport(
                level=level,
                layers=isolation.describe_layers(config, level, zygote.facts),
                attacks=attacks,
                not_chosen=reasons | {name: f"below {level!r}, which works" for name in lower},
                packages=zygote.facts["packages"],
            )
            return cls(config, report, zygote, scratch)
        raise isolation.refusal(reasons)

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._zygote.pid

    async def zygote(self) -> ZygoteClient:
        """The running zygote; a new one at the same level where it has died. ReplError after `close`."""
        async with self._starting:
            self.enter()
            if not self._zygote.alive:
                await self._zygote.close()
                self._zygote, _ = await _start_zygote(self.config, self.report.level, self.limits.scratch)
                if self._closed:  # meanwhile
                    await self._zygote.close()
                    self.enter()
            return self._zygote

    def enter(self) -> None:
        """Raises ReplError after `close`."""
        if self._closed:
            raise ReplError("the pool is closed")

    async def leave(self) -> None:
        """Nothing: the zygote outlives its REPLs."""

    async def close(self) -> None:
        """Ends every REPL and the zygote."""
        self._closed = True
        await asyncio.gather(*(repl.close() for repl in list(self.repls)))
        await self._zygote.close()
        self.limits.close()


async def _start_zygote(
    config: ReplConfig, level: str, scratch: ScratchBase | None
) -> tuple[ZygoteClient, dict[str, str]]:
    """A zygote that has passed the self-test of `level`, and the outcome of each attack."""
    spec = isolation.zygote_spec(config, level, scratch)
    command = [sys.executable]
    if level == "jail":
        command = [
            *jail.jail_command(spec["sys_path"], spec["read"], scratch=scratch is not None),
            jail.real_interpreter(),
        ]
    zygote = await ZygoteClient.start(spec, config.start_timeout, command)
    try:
        result: dict[str, Any] = await zygote.self_test(config.start_timeout)
        if result["error"]:
            raise SandboxError(result["error"])
        leaked = isolation.leaks(level, result["attacks"])
        if leaked:
            raise SandboxError(f"the self-test got through: {', '.join(leaked)}")
    except TimeoutError:
        await zygote.close()
        raise SandboxError(
            f"the self-test did not end within {config.start_timeout:g} s: raise start_timeout"
        ) from None
    except BaseException:
        await zygote.close()
        raise
    return zygote, result["attacks"]
