"""What the rest of the world needs of a REPL, wherever it runs: the protocol of `ReplPool` and `Repl`.

The tiers bare, sealed, guard and jail are one implementation of it. Others fit beside it without a change elsewhere:
`wasm` (CPython on WASI in this process, say by pyeryx) and `remote` (a container or microVM service). Such an adapter
is a class that satisfies `Pool`; `report.tier` says its name. Not covered: any such adapter.

What an adapter owes, beyond the signatures: cells see `context`, `answer` and `llm_batch` as docs/sandbox.md tells;
a step never raises for what the model's code does; times are measured on the trusted side and waiting in `llm_batch`
is not code time; a dead process is replaced, with the context there again, and the loss told in `state_lost`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

from rlm_env.repl.config import StepResult
from rlm_env.repl.host.batch_host import Handler
from rlm_env.repl.host.isolation import SandboxReport


@runtime_checkable
class Session(Protocol):
    """One REPL."""

    async def run(
        self,
        code: str,
        timeout: float | None = 10.0,  # noqa: ASYNC109 (of the cell, not of this call)
        wall_timeout: float | None = None,
    ) -> StepResult:
        """Runs one cell; see `Repl.run`."""
        ...

    async def fork(self, seed: int | None = None) -> Session:
        """A twin with the same state; ReplError where that cannot be."""
        ...

    async def close(self) -> None:
        """Ends it. Safe to call twice."""
        ...


@runtime_checkable
class Pool(Protocol):
    """Opens REPLs; an async context manager."""

    report: SandboxReport | None

    def open(
        self, context: Any = None, llm_batch: Handler | None = None, seed: int = 0
    ) -> AbstractAsyncContextManager[Session]:
        """A new REPL; see `ReplPool.open`."""
        ...

    async def __aenter__(self) -> Pool: ...

    async def __aexit__(self, *exception: Any) -> None: ...
