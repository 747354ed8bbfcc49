"""What a REPL costs, each figure beside a floor measured in the same run: one JSON line per figure.

    python scripts/bench/repl.py [--only NAME,NAME] [--quick]

Machines and their other users differ, so the figures are ratios; `bound` is what they should stay within. Measured:
opening, stepping, contexts, llm_batch, memory, forking. Not measured here: attacks and faults (tests/repl), long runs
(scripts/bench/soak.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from floors import ForkFloor, PingPong, cold_start, slow_server

from rlm_env.repl import Repl, ReplConfig, ReplPool

SCIENCE = ("numpy", "scipy", "sympy")
MEGABYTE = 2**20
quick = False


def say(name: str, value: float, bound: float | None = None, **details: Any) -> None:
    """One line of result. `bound`: the value should not be above it."""
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in details.items()}
    line = {"bench": name, "value": round(value, 4), "bound": bound, **shown}
    if bound is not None:
        line["within"] = bool(value <= bound)
    print(json.dumps(line), flush=True)


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    begin = time.perf_counter()
    await call()
    return time.perf_counter() - begin


async def alternate(count: int, *calls: Callable[[], Awaitable[Any]]) -> list[float]:
    """The median seconds of each call, run in turn so that a noisy moment hits all of them."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for call, own in zip(calls, seconds, strict=True):
            own.append(await timed(call))
    return [statistics.median(own) for own in seconds]


def pool(tier: str = "guard", **options: Any) -> ReplPool:
    return ReplPool(ReplConfig(tier=tier, require=tier, allow_unsafe=True, **options))


async def opening() -> None:
    """Rows 1 and 2 of the sandbox study, the floor of a bare fork, and imports."""
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
        for _ in range(15 if quick else 60):
            for call, own in zip(calls, seconds, strict=True):
                own.append(await timed(call))
            while opened:
                await opened.pop().close()
        guard, plain, fork = (statistics.median(own) for own in seconds)
        colds = [await timed(cold_start) for _ in range(3 if quick else 7)]
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
    """Rows 3 to 5: what a step costs, and what the walls add to it."""
    pong = PingPong()
    async with pool() as guarded, pool("bare") as bare, guarded.open() as repl, bare.open() as plain:
        count = 300 if quick else 2000
        for _ in range(20):
            await pong.once()
        walled, free, floor = await alternate(count, lambda: repl.run("1"), lambda: plain.run("1"), pong.once)
        say("step_guarded_vs_bare", walled / free, 1.15, guarded_us=walled * 1e6, bare_us=free * 1e6)
        say("step_vs_ping_pong", walled / floor, 20, step_us=walled * 1e6, ping_us=floor * 1e6)
        cells = {
            "loop": "s = 0\nfor i in range(3_000_000): s += i",
            "svd": "import numpy as np; np.linalg.svd(np.random.rand(250, 250)); None",
            "sort": "sorted(range(1_000_000), key=lambda x: -x)[0]",
        }
        for name, cell in cells.items():
            walled, free = await alternate(5 if quick else 15, lambda c=cell: repl.run(c), lambda c=cell: plain.run(c))
            say(f"cpu_bound_{name}_guarded_vs_bare", walled / free, 1.05, guarded_ms=walled * 1e3, bare_ms=free * 1e3)
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
        for _ in range(5 if quick else 15):
            loads.append(await timed(load))
            await kept.pop().close()
            floors.append(await timed(floor))
            kept.pop()[1].close()
        usable, bound = statistics.median(loads), statistics.median(floors)
        say("context_100MB_usable_vs_floor", usable / bound, 1.5, usable_ms=usable * 1e3, floor_ms=bound * 1e3)
        async with guarded.open(context=text) as large, guarded.open() as empty:
            count = 200 if quick else 1000
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
        zygote = await shared._running_zygote()
        total = sum(pss(repl.pid) for repl in group) + pss(zygote.facts["pid"])
        say("group_of_16_PSS_vs_context", total / len(data), 3, total_mb=total / MEGABYTE)
        for repl in members:
            await repl.close()
        await shared.close()


def pss(pid: int) -> int:
    """Proportional set size in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


async def memory() -> None:
    """Rows 6 and 8: memory, processes, threads and descriptors per idle REPL."""
    lone = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import numpy, scipy, sympy, time; print(1, flush=True); time.sleep(600)", stdout=-1
    )
    await lone.stdout.readline()
    process = pss(lone.pid)
    lone.kill()
    await lone.wait()
    count = 50 if quick else 200
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
    sizes = (1, 10, 100) if quick else (1, 10, 100, 1000)
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


async def batches() -> None:
    """llm_batch against the same requests made by aiohttp alone."""
    async with slow_server(0.05) as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def ask(prompt: str) -> str:
            async with client.post(url, data=prompt) as reply:
                return await reply.text()

        async def handler(prompts: list) -> list:
            return await asyncio.gather(*map(ask, prompts))

        async with pool() as guarded, guarded.open(llm_batch=handler) as repl:
            await repl.run(
                "from concurrent.futures import ThreadPoolExecutor\nworkers = ThreadPoolExecutor(64)\n"
                "small = [f'prompt {i}' for i in range(64)]; many = [f'prompt {i}' for i in range(1000)]"
            )

            async def floor() -> None:
                await handler([f"prompt {i}" for i in range(64)])

            async def batch() -> None:
                assert (await repl.run("llm_batch(small) == small", timeout=60)).output == "True\n"

            async def threads() -> None:
                code = "list(workers.map(lambda p: llm_batch([p])[0], small)) == small"
                assert (await repl.run(code, timeout=60)).output == "True\n"

            await floor(), await batch(), await threads()
            one, bound, spread = await alternate(7 if quick else 25, batch, floor, threads)
            say("llm_batch_64_vs_aiohttp", one / bound, 1.3, batch_ms=one * 1e3, floor_ms=bound * 1e3)
            say("llm_batch_64_threads_vs_one_batch", spread / one, 1.5, threads_ms=spread * 1e3, batch_ms=one * 1e3)
            async with client.get(url) as reply:
                before = int(await reply.text())
            begin = time.perf_counter()
            step = await repl.run("llm_batch(many) == many", timeout=60)
            seconds = time.perf_counter() - begin
            async with client.get(url) as reply:
                sent = int(await reply.text()) - before
            say("llm_batch_1000_requests_missing", abs(1000 - sent) + (step.output != "True\n"), 0, seconds=seconds)


async def channel() -> None:
    """Rows 9 to 11: frames, batching, and the stall of the event loop by large prompts."""
    frames = 0

    async def echo(prompts: list) -> list:
        return ["a" * 200 for _ in prompts]

    async with pool() as guarded, guarded.open(llm_batch=echo) as repl:
        await repl.run("kilo = ['p' * 1000] * 1000; mega = [chr(97 + i % 26) * 2 ** 20 for i in range(64)]")
        receive = repl._process.batches.receive

        def counted(fields: list) -> None:
            nonlocal frames
            frames += 1
            receive(fields)

        repl._process.batches.receive = counted
        await repl.run("llm_batch(['prompt'] * 1000); None")
        say("frames_per_small_batch_of_1000", frames, 2)
        together, apart = await alternate(
            3 if quick else 9,
            lambda: repl.run("llm_batch(kilo); None", timeout=60),
            lambda: repl.run("for p in kilo: llm_batch([p])", timeout=60),
        )
        say("llm_batch_1000_vs_1000_calls", together / apart, 1 / 20, batch_ms=together * 1e3, calls_ms=apart * 1e3)
        worst, stop = 0.0, False

        async def watch() -> None:
            nonlocal worst
            while not stop:
                begin = time.perf_counter()
                await asyncio.sleep(0)
                worst = max(worst, time.perf_counter() - begin)

        stalls = []
        for _ in range(3 if quick else 9):
            worst, stop = 0.0, False
            watcher = asyncio.create_task(watch())
            await repl.run("llm_batch(mega); None", timeout=60)
            stop = True
            await watcher
            stalls.append(worst)
        say("event_loop_stall_64x1MB_ms", statistics.median(stalls) * 1e3, 20)


async def neighbors() -> None:
    """Row 14: another REPL's step beside one that spins."""
    async with pool() as guarded, guarded.open() as repl, guarded.open() as hog:
        count = 300 if quick else 1500
        (alone,) = await alternate(count, lambda: repl.run("1"))
        spinning = asyncio.create_task(hog.run("while True: pass", timeout=None))
        await asyncio.sleep(0.1)
        (beside,) = await alternate(count, lambda: repl.run("1"))
        spinning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await spinning
        say("step_beside_a_hog_vs_alone", beside / alone, 2, beside_us=beside * 1e6, alone_us=alone * 1e6)


async def forking() -> None:
    """Row 15: a checkpoint and a step, against nothing but the fork of the same heap."""
    fork_cell = (
        "import ctypes, os, time\nc = ctypes.CDLL(None)\nb = time.perf_counter()\nr, w = os.pipe()\n"
        "pid = c.fork()\nif pid == 0:\n    os.write(w, b'x'); os._exit(0)\nos.read(r, 1)\n"
        "took = time.perf_counter() - b\nos.close(r); os.close(w); os.waitpid(pid, 0)\nprint(took)"
    )
    heaps = {
        "small": "x = 1",
        "100MB_str": "x = 'a' * 100 * 2**20",
        "200k_dicts": "x = [{'i': i} for i in range(200_000)]",
    }
    async with pool(allow_fork=True, checkpoint=True) as saving, pool("bare") as plain:
        for name, heap in heaps.items():
            async with saving.open() as repl, plain.open() as other:
                await repl.run(heap), await other.run(heap)
                floors, steps = [], []
                for _ in range(5 if quick else 15):
                    floors.append(float((await other.run(fork_cell)).output))
                    steps.append(await timed(lambda: repl.run("1")))
                floor, step = statistics.median(floors), statistics.median(steps)
                say(f"checkpoint_and_step_vs_fork_{name}", step / floor, 4, step_ms=step * 1e3, fork_ms=floor * 1e3)
                begin = time.perf_counter()
                killed = await repl.run("import os; os._exit(1)")
                again = await repl.run("len(str(x)) > 0")
                seconds = time.perf_counter() - begin
                assert not killed.state_lost
                assert again.output == "True\n"
                say(f"undone_and_answering_again_ms_{name}", seconds * 1e3)


async def ends() -> None:
    """Row 13: what is left after 1,000 opens and closes, and after the host is killed."""
    count = 100 if quick else 1000
    async with pool(preload=()) as guarded:
        zygote = guarded._zygote._process.pid
        for _ in range(count // 20):
            repls = await asyncio.gather(*(guarded.open() for _ in range(20)))
            await asyncio.gather(*(repl.close() for repl in repls))
        await asyncio.sleep(0.2)
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and parent_of(int(pid)) == zygote]
        say("processes_and_zombies_left_after_closes", len(left), 0, n=count)
    code = textwrap.dedent(
        """
        import asyncio, os
        from rlm_env.repl import ReplConfig, ReplPool
        async def main():
            async with ReplPool(ReplConfig(preload=())) as pool:
                repls = [await pool.open() for _ in range(20)]
                tasks = [asyncio.create_task(r.run('while True: pass', timeout=None)) for r in repls]
                await asyncio.sleep(0.5)
                print(*[r.pid for r in repls], pool._zygote._process.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    pids = [int(pid) for pid in (await host.stdout.readline()).split()]
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await asyncio.sleep(1)
    say(
        "survivors_one_second_after_SIGKILL_of_the_host",
        sum(parent_of(pid, zombies=False) is not None for pid in pids),
        0,
        n=len(pids),
    )


def parent_of(pid: int, zombies: bool = True) -> int | None:
    """The parent's id; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            return None if state == "Z" and not zombies else int(parent)
    except OSError:
        return None


BENCHES = {
    call.__name__: call
    for call in (opening, stepping, context, memory, many, batches, channel, neighbors, forking, ends)
}


async def main() -> None:
    global quick
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    quick = options.quick
    names = options.only.split(",") if options.only else list(BENCHES)
    unknown = set(names) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    for name in names:
        await BENCHES[name]()


if __name__ == "__main__":
    asyncio.run(main())
