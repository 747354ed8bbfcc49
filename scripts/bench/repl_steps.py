"""The REPL's bench, part one: opening, steps, contexts, memory, many REPLs at once."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from floors import ForkFloor, PingPong, cold_start
from repl_tools import MEGABYTE, alternate, pool, pss, say, timed, times

from rlm_env.repl import Repl, ReplPool


async def opening() -> None:
    """Opening against a cold start and a bare fork, the sandbox's share of it, and imports."""
    floor = ForkFloor()
    async with pool() as guarded, pool("bare") as bare:
        opened: list[Repl] = []

        def start(source: ReplPool) -> Callable[[], Awaitable[None]]:
            async def once() -> None:
                repl = await source.open()
                await repl.run("1 + 1")
                opened.append(repl)

            return once

        calls = start(guarded), start(bare), floor.once
        seconds: list[list[float]] = [[], [], []]
        for _ in range(times(15, 60)):
            for call, own in zip(calls, seconds, strict=True):
                own.append(await timed(call))
            while opened:
                await opened.pop().close()
        guard, plain, fork = (statistics.median(own) for own in seconds)
        colds = [await timed(cold_start) for _ in range(times(3, 7))]
        cold = statistics.median(colds)
        say("open_and_step_vs_cold_start", guard / cold, 1 / 20, open_ms=guard * 1e3, cold_ms=cold * 1e3)
        say("open_and_step_vs_bare_fork", guard / fork, 5, open_ms=guard * 1e3, fork_ms=fork * 1e3)
        say("guard_cost_at_start", guard / plain - 1, 0.5, guarded_ms=guard * 1e3, without_ms=plain * 1e3)
        async with guarded.open() as repl:
            step = await repl.run(
                "import time; b = time.perf_counter()\nimport numpy, scipy, sympy\ntime.perf_counter() - b"
            )
            say("import_science_inside_ms", float(step.output) * 1e3, 5)
    floor.close()


async def stepping() -> None:
    """What a step costs, and what the sandbox adds to it."""
    pong = PingPong()
    async with pool() as guarded, pool("bare") as bare, guarded.open() as repl, bare.open() as plain:
        count = times(300, 2000)
        for _ in range(20):
            await pong.once()
        guarded_s, free, floor = await alternate(count, lambda: repl.run("1"), lambda: plain.run("1"), pong.once)
        say("step_guarded_vs_bare", guarded_s / free, 1.15, guarded_us=guarded_s * 1e6, bare_us=free * 1e6)
        say("step_vs_ping_pong", guarded_s / floor, 20, step_us=guarded_s * 1e6, ping_us=floor * 1e6)
        cells = {
            "loop": "s = 0\nfor i in range(3_000_000): s += i",
            "svd": "import numpy as np; np.linalg.svd(np.random.rand(250, 250)); None",
            "sort": "sorted(range(1_000_000), key=lambda x: -x)[0]",
        }
        for name, cell in cells.items():
            guarded_s, free = await alternate(times(5, 15), lambda c=cell: repl.run(c), lambda c=cell: plain.run(c))
            say(
                f"cpu_bound_{name}_guarded_vs_bare",
                guarded_s / free,
                1.05,
                guarded_ms=guarded_s * 1e3,
                bare_ms=free * 1e3,
            )
    pong.close()


async def context() -> None:
    """A context of 100 MB: getting it there, and what it costs later steps (nothing)."""
    text = ("line of text number %d\n" * 5 % (1, 2, 3, 4, 5)) * (100 * MEGABYTE // 115)
    data = text.encode()

    kept: list[Any] = []

    async def floor() -> None:
        fd = os.memfd_create("floor")
        written = 0
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
        mapped = mmap.mmap(fd, len(data), prot=mmap.PROT_READ)
        kept.append((str(mapped, "utf-8"), mapped))
        os.close(fd)

    async with pool() as guarded:

        async def load() -> None:
            repl = await guarded.open(context=text)
            assert (await repl.run("len(context)")).output == f"{len(text)}\n"
            kept.append(repl)

        loads, floors = [], []
        for _ in range(times(5, 15)):
            loads.append(await timed(load))
            await kept.pop().close()
            floors.append(await timed(floor))
            kept.pop()[1].close()
        usable, bound = statistics.median(loads), statistics.median(floors)
        say("context_100MB_usable_vs_floor", usable / bound, 1.5, usable_ms=usable * 1e3, floor_ms=bound * 1e3)
        async with guarded.open(context=text) as large, guarded.open() as empty:
            count = times(200, 1000)
            heavy, light = await alternate(count, lambda: large.run("1"), lambda: empty.run("1"))
            say("step_with_100MB_vs_without", heavy / light, 1.2, with_us=heavy * 1e6, without_us=light * 1e6)
        shared = await guarded.share(text)
        first = await guarded.open(context=shared)
        members = [first]

        async def member() -> None:
            members.append(await guarded.open(context=shared))

        async def alone() -> None:
            members.append(await guarded.open())

        joined, fresh = await alternate(15, member, alone)
        say("group_member_open_vs_empty_open", joined / fresh, 1.2, member_ms=joined * 1e3, empty_ms=fresh * 1e3)
        group = [first, *members[1::2]]
        for repl in group:
            await repl.run("import gc\ncontext.count('7'), context[::1000][:1], gc.collect(); None")
        zygote = await shared.zygote()
        total = sum(pss(repl.pid) for repl in group) + pss(zygote.pid)
        say("group_of_16_PSS_vs_context", total / len(data), 3, total_mb=total / MEGABYTE)
        for repl in members:
            await repl.close()
        await shared.close()


async def memory() -> None:
    """Memory, processes, threads and descriptors per idle REPL."""
    lone = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import numpy, scipy, sympy, time; print(1, flush=True); time.sleep(600)", stdout=-1
    )
    await lone.stdout.readline()
    process = pss(lone.pid)
    lone.kill()
    await lone.wait()
    count = times(50, 200)
    async with pool() as guarded:
        descriptors = len(os.listdir("/proc/self/fd"))
        repls = [await guarded.open() for _ in range(count)]
        descriptors = (len(os.listdir("/proc/self/fd")) - descriptors) / count
        await asyncio.gather(*(repl.run("1") for repl in repls))
        each = statistics.mean(pss(repl.pid) for repl in repls)
        threads = {len(os.listdir(f"/proc/{repl.pid}/task")) for repl in repls}
        say(
            "idle_PSS_vs_subprocess",
            each / process,
            1 / 8,
            repl_mb=each / MEGABYTE,
            process_mb=process / MEGABYTE,
            n=count,
        )
        say("idle_PSS_mb", each / MEGABYTE, 5)
        say("host_descriptors_per_repl", descriptors, 4)
        say("threads_per_repl", max(threads), 1)


async def many() -> None:
    """Steps per second with 1 to 1,000 REPLs that always have a cell in flight; none may fail."""
    sizes = [size for size in (1, 10, 100, 1000) if size <= times(100, 1000)]
    async with pool() as guarded:
        repls: list[Repl] = []
        for size in sizes:
            begin = time.perf_counter()
            while len(repls) < size:
                batch = min(50, size - len(repls))
                repls += await asyncio.gather(*(guarded.open(seed=i) for i in range(batch)))
            opening = time.perf_counter() - begin
            done, failed, end = 0, 0, time.perf_counter() + 3

            async def work(repl: Repl) -> None:
                nonlocal done, failed
                while time.perf_counter() < end:  # noqa: B023
                    step = await repl.run("x = 1", timeout=30)
                    done += 1
                    failed += step.error is not None

            begin = time.perf_counter()
            await asyncio.gather(*(work(repl) for repl in repls))
            rate = done / (time.perf_counter() - begin)
            say(f"failed_steps_with_{size}_repls", failed, 0, steps_per_second=rate, opened_in_s=opening)
        begin = time.perf_counter()
    say("close_all_seconds", time.perf_counter() - begin, None, n=len(repls))


async def neighbors() -> None:
    """A REPL's step beside another REPL that spins."""
    async with pool() as guarded, guarded.open() as repl, guarded.open() as hog:
        count = times(300, 1500)
        (alone,) = await alternate(count, lambda: repl.run("1"))
        spinning = asyncio.create_task(hog.run("while True: pass", timeout=None))
        await asyncio.sleep(0.1)
        (beside,) = await alternate(count, lambda: repl.run("1"))
        spinning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await spinning
        say("step_beside_a_hog_vs_alone", beside / alone, 2, beside_us=beside * 1e6, alone_us=alone * 1e6)
