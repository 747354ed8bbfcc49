"""One REPL: cells run in order in a process that is replaced where it dies.

This file has the public calls, the result of a step, and the replacement of a dead process with the context mapped
again. One running cell and its limits: `step.py`. The process itself: `process.py`. Opening many: `pool.py`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Protocol

from rlm_env.repl.bounds import MAX_ERROR, omitted, shorten
from rlm_env.repl.config import ReplConfig, ReplError, StepResult
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host.batch_host import Handler
from rlm_env.repl.host.cell_report import CellReport
from rlm_env.repl.host.pool_limits import PoolLimits
from rlm_env.repl.host.process import ReplProcess
from rlm_env.repl.host.resources import resource_errors
from rlm_env.repl.host.step import Step
from rlm_env.repl.host.zygote_client import ZygoteClient
from rlm_env.repl.wire import sanitize

UNDONE = "; the cell is undone, all variables are as they were before it"
"""Where a checkpoint of the state before the cell takes its place."""
_CHECKPOINT_PATIENCE = 10.0
"""Seconds that a checkpoint may take before a cell of a shorter time-out: a busy machine is no fault of the process."""


class ReplSource(Protocol):
    """Where a REPL is forked from: the zygote of a pool, or that of a context which several REPLs share."""

    repls: set[Repl]
    """The open REPLs of the pool; each adds itself and removes itself."""
    limits: PoolLimits
    """What they share."""

    async def zygote(self) -> ZygoteClient:
        """A running zygote. Raises ReplError where there is none to be had."""
        ...

    def enter(self) -> None:
        """Called before a REPL is opened or forked. Raises ReplError after the source was closed."""
        ...

    async def leave(self) -> None:
        """Called when that REPL was closed, or could not be opened."""
        ...


async def _new_process(
    source: ReplSource,
    config: ReplConfig,
    context: EncodedContext,
    handler: Handler | None,
    seed: int,
    answer: str = "",
    limit: float | None = None,
) -> ReplProcess:
    """A process that is ready for cells, within `limit` seconds and `config.start_timeout`. ReplError where there is
    none to be had."""
    limit = config.start_timeout if limit is None else min(limit, config.start_timeout)
    try:
        with resource_errors("no REPL can be opened"):
            async with asyncio.timeout(limit):
                zygote = await source.zygote()
                return await ReplProcess.open(zygote, config, source.limits, context, handler, seed, answer)
    except TimeoutError:
        raise ReplError(
            f"no process was ready within {limit:g} s: the machine is too busy (raise start_timeout), or the pool's "
            "zygote is stopped"
        ) from None


class Repl:
    """A persistent Python process. Made by `ReplPool.open`; usable from one event loop, one cell at a time."""

    def __init__(
        self,
        source: ReplSource,
        config: ReplConfig,
        process: ReplProcess,
        context: EncodedContext,
        handler: Handler | None,
        seed: int,
    ) -> None:
        self._source = source
        self._config = config
        self.ends: list[str] = []
        """What happened to each process that ended before the REPL was closed, in words ("it ..." goes before)."""
        self._context = context
        self._handler = handler
        self._seed = seed
        self._step: Step | None = None
        self._turn = asyncio.Lock()
        self._cells = 0
        self._content = ""
        self._cut = 0
        """Characters that `_content` lacks."""
        self._reported_dead: ReplProcess | None = None
        """The last process whose end was reported in a StepResult."""
        self._closed = False
        self._take(process)
        source.repls.add(self)

    @classmethod
    async def open(
        cls, source: ReplSource, config: ReplConfig, context: EncodedContext, handler: Handler | None, seed: int
    ) -> Repl:
        """A new REPL, which owns `context` from now on. ReplError where no process can be started."""
        async with AsyncExitStack() as undo:
            undo.callback(context.close)
            source.enter()
            undo.push_async_callback(source.leave)
            process = await _new_process(source, config, context, handler, seed)
            undo.pop_all()
        return cls(source, config, process, context, handler, seed)

    @property
    def pid(self) -> int | None:
        """The process id of the running child; None where it has died."""
        return self._process.pid if self._process.alive else None

    async def run(
        self,
        code: str,
        timeout: float | None = 10.0,  # noqa: ASYNC109 (of the cell, not of this call)
        wall_timeout: float | None = None,
    ) -> StepResult:
        """Runs one cell. Mistakes of the model are in the result, never raised.

        `timeout`: seconds of code time (waits in `llm_batch` are free). `wall_timeout`: seconds of all time. None:
        no limit. Cancelling the call stops the cell as a time-out does; the REPL stays usable.
        Raises ReplError where the REPL is closed or no process can be started.
        """
        for name, value in (("timeout", timeout), ("wall_timeout", wall_timeout)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r}: give a positive number of seconds, or None")
        if not isinstance(code, str):
            raise TypeError(f"code is a {type(code).__name__}; it must be a str")
        async with self._turn:
            if self._closed:
                raise ReplError("this REPL is closed")
            begin = time.monotonic()
            if self._step is not None:  # a cancelled call left it; it is being stopped
                await asyncio.shield(self._step.report)
            lost_before = not self._process.alive and await self._replace_process(wall_timeout)
            self._cells += 1
            checkpoint = None
            if self._config.checkpoint:
                checkpoint = await self._checkpoint(timeout, wall_timeout)
            if wall_timeout is not None:
                wall_timeout = max(wall_timeout - (time.monotonic() - begin), 0.001)
            step = self._step = Step(
                self._process, self._source.limits.lateness, timeout, wall_timeout, self._config.interrupt_grace
            )
            self._process.run(
                self._cells, f"<cell {self._cells}>", sanitize(code), step.clock.busy, step.done, step.lost
            )
            step.begin()
            try:
                report = await step.report
                if report is not None:
                    await self._process.hold_to_scratch()
                if report is None or not self._process.alive:
                    await asyncio.shield(self._process.ended)
            except asyncio.CancelledError:
                step.abandon()
                if checkpoint is not None:
                    checkpoint.kill("it was a checkpoint")
                raise
            self._step = None
            if report is None or not self._process.alive:
                return self._result_of_death(step, lost_before, checkpoint)
            if checkpoint is not None:
                checkpoint.kill("it was a checkpoint")
            return self._result(step, report, lost_before)

    async def fork(self, seed: int | None = None) -> Repl:
        """A copy with the same state, independent from now on: for branching rollouts. `seed`: seeds its `random` and
        `numpy.random` anew; with None it draws the same numbers. The handler is the same one.

        Needs `ReplConfig(allow_fork=True)`. Raises ReplError where other threads run in the REPL.
        """
        if not self._config.allow_fork:
            raise ReplError("fork needs ReplConfig(allow_fork=True)")
        async with self._turn:
            if self._closed:
                raise ReplError("this REPL is closed")
            if self._step is not None:
                await asyncio.shield(self._step.report)
            if not self._process.alive:
                raise ReplError("the REPL's process has died; run a cell first")
            async with AsyncExitStack() as undo:
                undo.enter_context(resource_errors("the REPL cannot be forked"))
                self._source.enter()
                undo.push_async_callback(self._source.leave)
                context = self._context.duplicate()
                undo.callback(context.close)
                process = await self._process.fork(self._handler, seed, self._config.start_timeout)
                undo.pop_all()
            fork = Repl(self._source, self._config, process, context, self._handler, self._seed)
            fork._cells, fork._content, fork._cut = self._cells, self._content, self._cut
            return fork

    async def _checkpoint(self, time_limit: float | None, wall_limit: float | None) -> ReplProcess | None:
        """The state before a step, in a process that waits. None where the process refuses, or does not answer within
        the step's limits: then it is not idle, whatever it has reported."""
        limits = [self._config.start_timeout]
        if time_limit is not None:
            limits.append(max(time_limit, _CHECKPOINT_PATIENCE))
        if wall_limit is not None:
            limits.append(wall_limit)
        try:
            return await self._process.fork(self._handler, None, min(limits))
        except ReplError:
            return None

    async def _replace_process(self, limit: float | None) -> bool:
        """Puts a new process into the place of a dead one, within `limit` seconds. True if the dead one's end has not
        been reported to the caller of `run` yet."""
        await asyncio.shield(self._process.ended)
        lost = self._process is not self._reported_dead
        process = await _new_process(
            self._source, self._config, self._context, self._handler, self._seed, self._content, limit
        )
        self._take(process)
        if self._closed:  # meanwhile
            await process.close()
            raise ReplError("this REPL is closed")
        return lost

    def _take(self, process: ReplProcess) -> None:
        """Goes on in this process. Its end is kept in `ends`."""
        self._process = process
        process.ended.add_done_callback(lambda ended: None if self._closed else self.ends.append(ended.result()))

    def _result(self, step: Step, report: CellReport, lost_before: bool) -> StepResult:
        """The result of a cell that has reported, every part of it bounded."""
        config = self._config
        seconds, waited = step.booked
        if report.content is not None:
            self._content = report.content[: config.max_answer_chars]
            self._cut = max(report.cut, 0) + len(report.content) - len(self._content)
        error = report.error
        if error is not None:
            error = shorten(error, MAX_ERROR + 200)
        if step.timed_out is not None:
            stopped = f"TimeoutError: {step.timed_out}"
            error = f"{error}\n{stopped}" if error else stopped
        return StepResult(
            output=shorten(report.output, config.max_output_chars),
            error=error,
            timed_out=step.timed_out is not None,
            state_lost=lost_before,
            seconds=seconds,
            sub_llm_seconds=waited,
            answer={"content": self._content, "ready": report.ready},
            truncated_chars=omitted(report.total, config.max_output_chars),
            answer_truncated_chars=self._cut,
        )

    def _result_of_death(self, step: Step, lost_before: bool, checkpoint: ReplProcess | None) -> StepResult:
        """The process has died during the step. A checkpoint that is alive takes its place."""
        seconds, waited = step.booked
        if checkpoint is not None and not checkpoint.alive:
            checkpoint.kill("it was a checkpoint")
            checkpoint = None
        self._reported_dead = step.process
        if checkpoint is not None:
            self._take(checkpoint)
            checkpoint.forget(step.process)
        return StepResult(
            error=f"The REPL's process {step.process.ended.result()}{'' if checkpoint is None else UNDONE}.",
            timed_out=step.timed_out is not None,
            state_lost=checkpoint is None or lost_before,
            seconds=seconds,
            sub_llm_seconds=waited,
            answer={"content": self._content, "ready": False},
            answer_truncated_chars=self._cut,
        )

    async def close(self) -> None:
        """Ends the process, at once. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._source.repls.discard(self)
        await self._process.close()
        self._context.close()
        await self._source.leave()

    async def __aenter__(self) -> Repl:
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        await self.close()
