"""The REPL's bench, part two: `llm_batch`, forks and checkpoints, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time

import aiohttp
from floors import slow_server
from repl_tools import alternate, parent_of, pool, say, timed, times


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
            one, bound, spread = await alternate(times(7, 25), batch, floor, threads)
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
    """Frames, batching, and the stall of the event loop by large prompts."""
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
            times(3, 9),
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
        for _ in range(times(3, 9)):
            worst, stop = 0.0, False
            watcher = asyncio.create_task(watch())
            await repl.run("llm_batch(mega); None", timeout=60)
            stop = True
            await watcher
            stalls.append(worst)
        say("event_loop_stall_64x1MB_ms", statistics.median(stalls) * 1e3, 20)


async def forking() -> None:
    """A checkpoint and a step against a mere fork of the same heap."""
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
                for _ in range(times(5, 15)):
                    floors.append(float((await other.run(fork_cell)).output))
                    steps.append(await timed(lambda: repl.run("1")))
                floor, step = statistics.median(floors), statistics.median(steps)
                say(f"checkpoint_and_step_vs_fork_{name}", step / floor, 4, step_ms=step * 1e3, fork_ms=floor * 1e3)
                undone = []
                for _ in range(times(5, 15)):
                    begin = time.perf_counter()
                    killed = await repl.run("import os; os._exit(1)")
                    again = await repl.run("len(str(x)) > 0")
                    undone.append(time.perf_counter() - begin)
                    assert not killed.state_lost
                    assert again.output == "True\n"
                say(f"undone_and_answering_again_ms_{name}", statistics.median(undone) * 1e3)


async def ends() -> None:
    """What is left after 1,000 opens and closes, and after the host is killed."""
    count = times(100, 1000)
    async with pool(preload=()) as guarded:
        zygote = guarded.zygote_pid
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
                print(*[r.pid for r in repls], pool.zygote_pid, flush=True)
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
