"""When held-out evaluations are made: beside the training, which does not wait for them.

One at a time. One that is due while another runs begins when that has ended; of several the newest. The first is on the
initial weights alone, so the first update of the engine waits for it; the last is on the final weights alone, when
nothing else is left to do. What is asked and measured is in `held_out.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from rlm_env.train.report.metrics import MetricsLog
from rlm_env.train.rl.config import HeldOutConfig
from rlm_env.train.rl.held_out import HeldOut


class Evaluations:
    """The held-out evaluations of a run. `fail`: called with the error of one that runs beside the training."""

    def __init__(
        self, config: HeldOutConfig, held_out: HeldOut, metrics: MetricsLog, fail: Callable[[Exception], None]
    ) -> None:
        self._config = config
        self._held_out = held_out
        self._metrics = metrics
        self._fail = fail
        self._running: asyncio.Task[None] | None = None
        self._baseline: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._next: tuple[int, asyncio.Task[Any] | None] | None = None

    def begin(self, step: int, publishing: asyncio.Task[Any] | None = None) -> None:
        """Begins the evaluation that is due after `step` updates, if one is. `publishing`: brings the weights of that
        step into the engine; None: they are there. One that a killed run had not ended is made up for, but for that of
        the initial weights, which are gone."""
        due = step - step % self._config.every if self._config.every else 0
        if step and not due:
            return
        if not self._config.n or self._metrics.evaluated(due) or self._error is not None:
            return
        if self._running is not None and not self._running.done():
            self._next = (due, publishing)
            return
        self._running = asyncio.create_task(self._run(due, publishing))
        if step == 0:
            self._baseline = self._running

    async def baseline(self) -> None:
        """Returns when the evaluation of the initial weights has ended, if one runs; its error goes to `fail`."""
        if self._baseline is not None:
            await asyncio.wait([self._baseline])

    async def finish(self, step: int) -> None:
        """Waits for the one that runs, then makes the last evaluation. Raises what they raise."""
        self._next = None
        if self._running is not None:
            await self._running
        if self._error is not None:
            raise self._error
        if self._config.n and not self._metrics.evaluated(step):
            await self._evaluate(step, alone=True)

    async def stop(self) -> None:
        """Ends the one that runs. Its rollouts are kept, and a resumed run goes on with them."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, step: int, publishing: asyncio.Task[Any] | None) -> None:
        try:
            if publishing is not None:
                await asyncio.wait([publishing])
            if not self._metrics.evaluated(step):  # it may have become due once more while it ran
                await self._evaluate(step, alone=step == 0)
        except Exception as error:
            self._error = error
            self._fail(error)
            return
        if self._next is not None:
            (due, publishing), self._next = self._next, None
            await self._run(due, publishing)

    async def _evaluate(self, step: int, *, alone: bool) -> None:
        start = time.monotonic()
        values = await self._held_out.run(step, alone=alone)
        self._metrics.write(step, {**values, "seconds/eval": time.monotonic() - start})
        self._metrics.show_evaluation(step, values)
