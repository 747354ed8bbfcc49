"""What one REPL can take of the machine: threads, memory of the kernel, and with others memory, at every level."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplConfig, ReplPool
from rlm_env.repl.host import watchdog
from rlm_env.repl.sandbox.enter import MAX_THREADS
from tests.repl.levels import GUARD_FIRST, open_pool
from tests.waiting import until

pytestmark = [pytest.mark.identity, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=GUARD_FIRST)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, ReplPool, Repl]]:
    """(level, pool, a REPL that nobody attacks)"""
    pool = await open_pool(request.param, interrupt_grace=0.3)
    sibling = await pool.open()
    await sibling.run("mine = 1")
    yield request.param, pool, sibling
    await pool.close()


HOG = """
import threading, time
threading.stack_size(32768)
n = 0
try:
    while n < {count}:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1
except RuntimeError as error: pass
print(n)
{then}
"""


def is_limited(pool: ReplPool) -> bool:
    """The kernel counts the threads of each REPL, because it has a user id of its own."""
    return "private uid" in next(layer.detail for layer in pool.report.layers if layer.name == "identity")


async def most_threads(pid: int, task: asyncio.Task) -> tuple[int, float]:
    """The most threads that a process had, and for how many seconds they were above the bound."""
    most, since, above = 0, None, 0.0
    while not task.done():
        count = watchdog.thread_count(pid)
        most = max(most, count)
        if count > MAX_THREADS:
            since = since or time.monotonic()
            above = time.monotonic() - since
        await asyncio.sleep(0.005)
    return most, above


async def test_threads_are_bounded_whoever_runs_it(arena):
    _, pool, sibling = arena
    async with pool.open() as repl:
        pid = repl.pid
        running = asyncio.create_task(repl.run(HOG.format(count=30_000, then="time.sleep(3)"), timeout=20))
        most, above = await most_threads(pid, running)
        step = await running
        if is_limited(pool):  # the kernel refuses, and the cell goes on
            assert most <= MAX_THREADS
        else:
            assert step.state_lost
            assert f"more than the {MAX_THREADS} that a REPL may have" in step.error
            assert above < 0.5  # 0.1 s on a machine that has a core for the watchdog
            assert repl.ends
            assert (await repl.run("1 + 1")).output == "2\n"
    await asyncio.to_thread(int)
    threads = await sibling.run("import threading; t = threading.Thread(target=int); t.start(); t.join(); print(mine)")
    assert threads.output == "1\n", threads.error


@pytest.mark.slow
async def test_threads_that_outlive_their_cell_are_counted_too(arena):
    _, pool, _ = arena
    async with pool.open() as repl:
        hog = HOG.format(count=30_000, then="")
        step = await repl.run(f"import threading; threading.Timer(0.1, exec, ({hog!r}, {{}})).start()")
        assert step.error is None
        if is_limited(pool):  # the kernel refuses more
            pid = repl.pid
            assert pid is not None
            await until(lambda: watchdog.thread_count(pid) >= MAX_THREADS - 1)
            await asyncio.sleep(0.3)
            assert MAX_THREADS - 2 <= watchdog.thread_count(pid) <= MAX_THREADS
        else:
            await until(lambda: repl.ends)
            assert f"more than the {MAX_THREADS} that a REPL may have" in repl.ends[0]


async def test_positive_control_two_hundred_threads_are_fine(arena):
    _, pool, _ = arena
    async with pool.open() as repl:
        step = await repl.run(HOG.format(count=200, then="time.sleep(0.2)"), timeout=20)
        assert step.output == "200\n", step.error
        assert (await repl.run("n")).output == "200\n"


BUFFERS = """
import os, socket
pairs, queued = [], 0
try:
    while True:
        pair = socket.socketpair()
        pairs += pair
        for one in pair:
            try: one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10**9)
            except OSError: pass
            one.setblocking(False)
            try:
                while True: queued += one.send(b'x' * 65536)
            except BlockingIOError: pass
except OSError: pass
print(queued)
"""
TABLES = """
import ctypes
flags = 0x3D0F00 & ~0x400  # a thread as of pthread_create, without CLONE_FILES
c = ctypes.CDLL(None, use_errno=True)
c.syscall.restype = ctypes.c_long
stack = ctypes.create_string_buffer(65536)
{call}
print(ctypes.get_errno())
"""


async def test_buffers_of_sockets_are_bounded(arena):
    level, pool, _ = arena
    async with pool.open() as repl:
        queued = int((await repl.run(BUFFERS, timeout=20)).output)
    if level == "bare":  # the positive control; wmem_max of this kernel decides how much it is
        most = int(Path("/proc/sys/net/core/wmem_max").read_text())  # noqa: ASYNC240
        assert queued > min(most, 2**22) * 10
    else:
        assert 0 < queued < 32 * 2**20


async def test_a_thread_with_descriptors_of_its_own_is_refused(arena):
    level, pool, _ = arena
    # With an impossible combination of flags (CLONE_THREAD without CLONE_SIGHAND) the kernel itself says EINVAL.
    async with pool.open() as repl:
        assert (await repl.run(TABLES.format(call="c.syscall(56, 0x10000, stack, 0, 0, 0)"))).output == (
            "22\n" if level == "bare" else "1\n"
        )
        if level != "bare":
            assert (await repl.run(TABLES.format(call="c.syscall(56, flags, stack, 0, 0, 0)"))).output == "1\n"


async def test_the_largest_ends_when_all_together_use_up_the_pools_memory(arena):
    level, _, _ = arena
    pool = await open_pool(level, pool_memory_mb=300, interrupt_grace=0.3)
    try:
        small, large, largest = [await pool.open(context="c") for _ in range(3)]
        await small.run("kept = bytearray(20 * 2**20)")
        assert (await large.run("kept = bytearray(120 * 2**20)")).error is None
        step = await largest.run("import time\nkept = bytearray(220 * 2**20)\ntime.sleep(20)", timeout=20)
        assert step.state_lost
        assert "300 MiB that they may hold together" in step.error
        for repl, size in ((small, 20), (large, 120)):
            assert (await repl.run("len(kept) >> 20")).output == f"{size}\n"
        assert (await largest.run("context")).output == "'c'\n"
    finally:
        await pool.close()


@pytest.mark.slow
async def test_memory_that_a_group_shares_counts_once(arena):
    level, _, _ = arena
    pool = await open_pool(level, pool_memory_mb=120)
    try:
        shared = await pool.share("x" * (60 * 2**20))
        repls = [await pool.open(context=shared) for _ in range(6)]
        for repl in repls:
            assert (await repl.run("context.count('x') >> 20")).output == "60\n"
        await asyncio.sleep(1.2)  # memory is counted in any case
        assert all(repl.pid is not None for repl in repls)
        await shared.close()
    finally:
        await pool.close()


async def test_the_watchdog_ends_with_its_pool():
    def running() -> int:
        return sum(thread.name == "repl-watchdog" for thread in watchdog.threading.enumerate())

    before = running()
    pool = ReplPool(ReplConfig(preload=()))
    async with pool:
        assert running() == before
        async with pool.open():
            assert running() == before + 1
    assert running() == before


PRIVATE = """
import os
print(os.getuid())
"""


@pytest.mark.parametrize("level", ["guard", pytest.param("sealed", marks=pytest.mark.slow)])
async def test_no_two_repls_have_one_user_id(level: str):
    """Of groups, pools and forks alike; where the pool is root and other users can read Python."""
    async with await open_pool(level) as first, await open_pool(level) as second:
        detail = next(layer.detail for layer in first.report.layers if layer.name == "identity")
        if "private uid" not in detail:
            pytest.skip(f"no private user ids here: {detail}")
        groups = [await first.share("one"), await first.share("two")]
        repls = [await first.open(context=group) for group in groups for _ in range(3)]
        repls += [await second.open() for _ in range(3)] + [await first.open() for _ in range(3)]
        uids = [(await repl.run(PRIVATE)).output for repl in repls]
        assert len(set(uids)) == len(uids)
        hog = await repls[0].run(HOG.format(count=30_000, then=""), timeout=20)
        assert hog.error is None
        for repl in repls[1:]:
            step = await repl.run("import threading; t = threading.Thread(target=int); t.start(); t.join(); 1")
            assert step.output == "1\n", step.error
        for group in groups:
            await group.close()
