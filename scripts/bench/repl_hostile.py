"""The REPL's bench, part three: what REPLs that flood, forge or ask for much cost the host and their neighbors."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from repl_tools import MEGABYTE, pool, say, times

from rlm_env.repl import Repl, ReplPool, StepResult

FORGED = {
    "short_texts": "b'\\xa2ab' * 2**18",
    "nothing": "b'\\xc0' * (3 * 2**18)",
    "brackets": "(b'{\"messages\":[' + b'{},' * 2**18)[:3 * 2**18]",
}
SEND = """
import os, struct, time
def send(data, fd=4):
    view = memoryview(data)
    try:
        while view: view = view[os.write(fd, view):]
    except OSError: pass
"""


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def queued() -> float:
    """Seconds for which this thread was ready to run and had no core."""
    with open("/proc/thread-self/schedstat") as stat:
        return int(stat.read().split()[1]) / 1e9


class HonestRepls:
    """Honest REPLs at work: their steps, and beside them the host's memory and the longest lag of its loop, without the
    time in which other programs had the machine's cores."""

    def __init__(self, repls: list[Repl]) -> None:
        self._repls = repls
        self._stop = False
        self.steps: list[StepResult] = []
        self.lag = 0.0
        self.memory = 0

    async def __aenter__(self) -> HonestRepls:
        self._before = resident()
        self._tasks = [asyncio.create_task(call) for call in (self._watch(), *map(self._work, self._repls))]
        await asyncio.sleep(0.1)
        self.lag = 0.0
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _watch(self) -> None:
        while not self._stop:
            begin, waited = time.perf_counter(), queued()
            await asyncio.sleep(0.002)
            self.lag = max(self.lag, time.perf_counter() - begin - 0.002 - (queued() - waited))
            self.memory = max(self.memory, resident() - self._before)

    async def _work(self, repl: Repl) -> None:
        while not self._stop:
            self.steps.append(await repl.run("import time; time.sleep(0.02); llm_batch(['x'])", timeout=1.0))

    @property
    def harmed(self) -> int:
        """Steps that were stopped, ended, or booked ten times what they use."""
        return sum(step.error is not None or step.state_lost or step.seconds > 0.2 for step in self.steps)


async def echo(prompts: list) -> list:
    return ["ok"] * len(prompts)


async def opened(guarded: ReplPool, count: int) -> list[Repl]:
    return [await guarded.open(llm_batch=echo) for _ in range(count)]


async def forged() -> None:
    """One frame of 64 MB that no honest REPL sends."""
    async with pool(preload=()) as guarded:
        honest = await opened(guarded, 4)
        for name, part in FORGED.items():
            async with guarded.open(llm_batch=echo) as repl, HonestRepls(honest) as neighbors:
                code = f"{SEND}send(struct.pack('<I', 64 * 2**20))\nfor _ in range(86): send({part})\ntime.sleep(20)"
                step = await repl.run(code, timeout=20)
                assert step.state_lost or step.error
            say(f"forged_64MB_{name}_host_memory_vs_bytes", neighbors.memory / (64 * MEGABYTE), 4)
            say(f"forged_64MB_{name}_loop_lag_ms", neighbors.lag * 1e3, 100)
            say(f"forged_64MB_{name}_neighbors_harmed", neighbors.harmed, 0, n=len(neighbors.steps))


async def floods() -> None:
    """Well-formed batches while no cell runs, with nobody reading the refusals."""
    async with pool(preload=()) as guarded:
        honest = await opened(guarded, 4)
        async with guarded.open(llm_batch=echo) as repl:
            code = f"""{SEND}
import threading
def one(n): return struct.pack('<I', 15) + b'\\xa5batch\\xce' + struct.pack('>I', n) + b'\\x01\\x00\\xa1x'
def flood():
    n = 1
    time.sleep(0.3)
    while True:
        send(b''.join(one(i) for i in range(n, n + 2000))); n += 2000
threading.Thread(target=flood, daemon=True).start()"""
            assert (await repl.run(code)).error is None
            async with HonestRepls(honest) as neighbors:
                begin = time.perf_counter()
                for _ in range(1000):
                    await asyncio.sleep(0.01)
                    if repl.ends:
                        break
                seconds = time.perf_counter() - begin
            say("flood_of_refusals_host_memory_mb", neighbors.memory / MEGABYTE, 20)
            say("flood_of_refusals_loop_lag_ms", neighbors.lag * 1e3, 100)
            say("flood_of_refusals_ended_after_s", seconds, 2, told=repl.ends)
            say("flood_of_refusals_neighbors_harmed", neighbors.harmed, 0, n=len(neighbors.steps))


async def polite() -> None:
    """Sixteen REPLs that each send 250 texts of 1 MB at the same time, within all limits."""
    size = times(60, 250)

    async def count(prompts: list) -> list:
        await asyncio.sleep(0.05)
        return [str(len(prompt)) for prompt in prompts]

    async with pool(preload=()) as guarded:
        honest = await opened(guarded, 2)
        repls = [await guarded.open(llm_batch=count) for _ in range(16)]
        limit = guarded.config.pool_batch_mb * MEGABYTE
        async with HonestRepls(honest) as neighbors:
            begin = time.perf_counter()
            code = f"llm_batch(['x' * 2**20] * {size}) == [str(2**20)] * {size}"
            steps = await asyncio.gather(*(repl.run(code, timeout=60) for repl in repls))
            seconds = time.perf_counter() - begin
        wrong = sum(step.output != "True\n" for step in steps)
        say(f"polite_16x{size}MB_wrong", wrong, 0, seconds=seconds, code_s=max(step.seconds for step in steps))
        say(f"polite_16x{size}MB_host_memory_vs_its_limit", neighbors.memory / limit, 1.2)
        say(f"polite_16x{size}MB_loop_lag_ms", neighbors.lag * 1e3, 100)
        say(f"polite_16x{size}MB_neighbors_harmed", neighbors.harmed, 0, n=len(neighbors.steps))
