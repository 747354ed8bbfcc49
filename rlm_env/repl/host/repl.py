"""One REPL: cells run in order in a process that is replaced where it dies.

Covered: steps, their three clocks, stopping (SIGINT first, SIGKILL only then), replacement with the context mapped
again. Not covered: the process itself (`process.py`), opening many (`pool.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rlm_env.repl.child.capture import omitted, shorten
from rlm_env.repl.child.cell import MAX_ERROR
from rlm_env.repl.config import ReplError, StepResult
from rlm_env.repl.context_file import EncodedContext
from rlm_env.repl.host.clock import StepClock
from rlm_env.repl.host.process import ReplProcess
from rlm_env.repl.wire import Scalar, sanitize

if TYPE_CHECKING:
    from rlm_env.repl.host.batch_host import Handler
    from rlm_env.repl.host.pool import ReplPool
    from rlm_env.repl.host.shared_context import SharedContext

_LONG = 0.5
"""Seconds after which a step is long enough for a look at how busy the machine is."""
_SHORTEST = 0.001
_BUSY_POLL = 0.25
"""Seconds between looks at the CPU clock while a batch is in flight."""
KEPT = "its variables are kept"
UNDONE = "the cell is undone; all variables are as they were before it"
GONE = "all its variables are lost; `context` is there again, in a fresh process"


class _Step:
    """A cell on its way."""

    def __init__(self, process: ReplProcess, timeout: float | None, wall_timeout: float | None, grace: float) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.clock = StepClock(process.cpu_seconds, process.queued_seconds)
        self.report: asyncio.Future[list[Scalar] | None] = loop.create_future()
        self.timed_out: str | None = None
        """Which limit was reached, in words."""
        self._outcome: list[list[Scalar] | None] = []
        """What `report` was, or would have been had it not been cancelled in the same moment."""
        self._loop = loop
        self._timeout, self._wall_timeout, self._grace = timeout, wall_timeout, grace
        self._timer: asyncio.TimerHandle | None = None
        self._stage = 0
        process.ended.add_done_callback(self._died)

    def watch(self) -> None:
        """Looks at the clocks, and again when the next limit could be reached."""
        waits = []
        if self.clock.wall_seconds > _LONG:
            self.clock.watch_queue()
        if self._timeout is not None:
            left = self._timeout - self.clock.code_seconds
            if left <= 0:
                return self.stop(f"it ran longer than {self._timeout:g} s")
            waits.append(max(left, _BUSY_POLL) if self.clock.is_busy else max(left, _SHORTEST))
            if self.clock.wall_seconds < _LONG < left:
                waits.append(_LONG)
        if self._wall_timeout is not None:
            left = self._wall_timeout - self.clock.wall_seconds
            if left <= 0:
                return self.stop(f"it took longer than {self._wall_timeout:g} s, waiting included")
            waits.append(left)
        if waits:
            self._timer = self._loop.call_later(min(waits), self.watch)
        return None

    def stop(self, why: str) -> None:
        """SIGINT, again after the grace period, SIGKILL after another."""
        if self.report.done():
            return
        self._cancel_timer()
        self.timed_out = self.timed_out or why
        self.process.batches.open = False
        self.process.batches.cancel()
        if self._stage < 2:
            self._stage += 1
            self.process.interrupt()
            self._timer = self._loop.call_later(self._grace, self.stop, why)
        else:
            self.process.kill(f"did not react to an interrupt ({self.timed_out}) and was killed")

    def abandon(self) -> None:
        """Nobody waits for the report any more; the next call will. Stops the cell."""
        if self.report.cancelled():
            self.report = self._loop.create_future()
            if self._outcome:
                self.report.set_result(self._outcome[0])
        self.stop("its call was cancelled")

    def done(self, report: list[Scalar]) -> None:
        self._finish(report)

    def _died(self, _ended: asyncio.Future[str]) -> None:
        self._finish(None)

    def _finish(self, report: list[Scalar] | None) -> None:
        self._cancel_timer()
        self._outcome.append(report)
        if not self.report.done():
            self.report.set_result(report)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Repl:
    """A persistent Python process. Made by `ReplPool.open`; usable from one event loop, one cell at a time."""

    def __init__(
        self,
        pool: ReplPool,
        context: EncodedContext,
        handler: Handler | None,
        seed: int,
        group: SharedContext | None = None,
    ) -> None:
        self._pool = pool
        self._group = group
        self._config = pool.config
        self._context = context
        self._handler = handler
        self._seed = seed
        self._process: ReplProcess | None = None
        self._step: _Step | None = None
        self._turn = asyncio.Lock()
        self._cells = 0
        self._content = ""
        self._told_dead: ReplProcess | None = None
        """The last process whose end has been told in a StepResult."""
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id of the running child; None where it has died."""
        return self._process.pid if self._process is not None and self._process.alive else None

    async def _open(self) -> None:
        source = self._pool._base_zygote if self._group is None else self._group._running_zygote
        self._process = await ReplProcess.open(
            await source(),
            self._config,
            self._context,
            self._handler,
            self._on_busy,
            self._seed,
            self._content,
        )

    def _on_busy(self, busy: bool) -> None:
        if self._step is not None:
            self._step.clock.busy(busy)

    async def run(
        self,
        code: str,
        timeout: float | None = 10.0,  # noqa: ASYNC109 (of the cell, not of this call)
        wall_timeout: float | None = None,
    ) -> StepResult:
        """Runs one cell and returns what came of it; the model's mistakes are in the result, never raised.

        `timeout`: seconds of code time (waits in `llm_batch` are free). `wall_timeout`: seconds of all time. None:
        no limit. Cancelling the call stops the cell as a time-out does; the REPL stays usable.
        Raises ReplError where the REPL is closed or no process can be had.
        """
        for name, value in (("timeout", timeout), ("wall_timeout", wall_timeout)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r}: give a positive number of seconds, or None")
        if not isinstance(code, str):
            raise TypeError(f"code is a {type(code).__name__}; it must be a str")
        async with self._turn:
            if self._closed:
                raise ReplError("this REPL is closed")
            if self._step is not None:  # a cancelled call left it; it is being stopped
                await asyncio.shield(self._step.report)
            lost_before = await self._ensure_process()
            self._cells += 1
            checkpoint = await self._checkpoint()
            step = self._step = _Step(self._process, timeout, wall_timeout, self._config.interrupt_grace)
            self._process.run(self._cells, f"<cell {self._cells}>", sanitize(code), step.done)
            step.watch()
            try:
                report = await step.report
            except asyncio.CancelledError:
                step.abandon()
                if checkpoint is not None:
                    checkpoint.kill("it was a checkpoint")
                raise
            self._step = None
            if checkpoint is not None and (report is not None or not checkpoint.alive):
                checkpoint.kill("it was a checkpoint")
                checkpoint = None
            return await self._result(step, report, lost_before, checkpoint)

    async def fork(self, seed: int | None = None) -> Repl:
        """A twin with the same state, independent from now on: for branching rollouts. `seed`: seeds its `random` and
        `numpy.random` anew; None leaves it to draw the same numbers. The handler is the same one.

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
            if self._group is not None:
                self._group._enter()
            twin = Repl(self._pool, self._context.duplicate(), self._handler, self._seed, self._group)
            twin._cells, twin._content = self._cells, self._content
            self._pool._repls.add(twin)
            try:
                twin._process = await self._process.fork(self._handler, twin._on_busy, seed)
            except BaseException:
                await twin.close()
                raise
            return twin

    async def _checkpoint(self) -> ReplProcess | None:
        """The state before a step, in a process that waits; None where there is to be none or cannot be one."""
        if not self._config.checkpoint:
            return None
        try:
            return await self._process.fork(self._handler, self._on_busy, None)
        except ReplError:
            return None

    async def _ensure_process(self) -> bool:
        """Replaces a dead process. Returns whether its end is news to the caller of `run`."""
        if self._process.alive:
            return False
        await asyncio.shield(self._process.ended)
        lost = self._process is not self._told_dead
        await self._open()
        if self._closed:  # meanwhile
            await self._process.close()
            raise ReplError("this REPL is closed")
        return lost

    async def _result(
        self, step: _Step, report: list[Scalar] | None, lost_before: bool, checkpoint: ReplProcess | None
    ) -> StepResult:
        clock = step.clock
        times = {"seconds": clock.code_seconds, "sub_llm_seconds": clock.wait_seconds}
        if report is None:
            what = await step.process.ended
            self._told_dead = step.process
            if checkpoint is not None:
                self._process = checkpoint
            return StepResult(
                error=f"The REPL's process {what}: {GONE if checkpoint is None else UNDONE}.",
                timed_out=step.timed_out is not None,
                state_lost=checkpoint is None or lost_before,
                answer={"content": self._content, "ready": False},
                **times,
            )
        output, total, error, content, ready, _cut = report
        if content is not None:
            self._content = content[: self._config.max_answer_chars]
        output = shorten(output, self._config.max_output_chars)
        if error is not None:
            error = shorten(error, MAX_ERROR + 200)
        if step.timed_out is not None:
            told = f"TimeoutError: the cell was interrupted because {step.timed_out}; {KEPT}."
            error = f"{error}\n{told}" if error else told
        return StepResult(
            output=output,
            error=error,
            timed_out=step.timed_out is not None,
            state_lost=lost_before,
            answer={"content": self._content, "ready": ready},
            truncated_chars=omitted(total, self._config.max_output_chars),
            **times,
        )

    async def close(self) -> None:
        """Ends the process, at once. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._pool._forget(self)
        if self._process is not None:
            await self._process.close()
        self._context.close()
        if self._group is not None:
            await self._group._leave()

    async def __aenter__(self) -> Repl:
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        await self.close()
