"""Whatever keeps the host's loop, the cells that run meanwhile are not booked for it and not stopped."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from rlm_env.repl import ReplPool, StepResult
from tests.repl.levels import open_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = "import time\nfor _ in range(5): llm_batch(['x']); time.sleep(0.02)"


async def echo(prompts: list) -> list:
    return ["ok"] * len(prompts)


async def block_once() -> None:
    """Synchronous code, as of a scorer."""
    await asyncio.sleep(0.05)
    time.sleep(2.5)  # noqa: ASYNC251


async def block_computing() -> None:
    """The same, with the interpreter's lock held."""
    await asyncio.sleep(0.05)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        pass


async def block_often() -> None:
    """Many short blocks, each of which passes for nothing."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        time.sleep(0.06)  # noqa: ASYNC251
        await asyncio.sleep(0.001)


async def block_by_callbacks() -> None:
    """A queue of callbacks that are ready at the same time."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0.05)
    for _ in range(50):
        loop.call_soon(time.sleep, 0.05)
    await asyncio.sleep(0)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[("guard",), pytest.param(("sealed", "jail", "bare"), marks=pytest.mark.slow)],
    ids="+".join,
)
async def level_pools(request: pytest.FixtureRequest) -> AsyncIterator[list[ReplPool]]:
    """A pool of each level. The others than guard share the seconds for which the host is kept busy."""
    opened, missing = [], []
    for level in request.param:
        try:
            opened.append(await open_pool(level, interrupt_grace=0.3))
        except pytest.skip.Exception as skipped:
            missing.append(skipped)
    if not opened:
        raise missing[0]
    yield opened
    for pool in opened:
        await pool.close()
    if missing:
        raise missing[0]


async def beside(
    level_pools: list[ReplPool], block: Callable[[], Awaitable[None]], code: str, **limits: float
) -> list[StepResult]:
    """Three cells of each pool that run while the host is kept busy."""
    repls = [await pool.open(llm_batch=echo) for pool in level_pools for _ in range(3)]
    cells = [asyncio.create_task(repl.run(code, **limits)) for repl in repls]
    await block()
    steps = await asyncio.gather(*cells)
    await asyncio.gather(*(repl.close() for repl in repls))
    return steps


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block_once, marks=pytest.mark.identity),
        *(pytest.param(b, marks=pytest.mark.slow) for b in (block_computing, block_often, block_by_callbacks)),
    ],
)
async def test_cells_of_a_tenth_of_a_second_are_booked_that_much(level_pools: list[ReplPool], block):
    for step in await beside(level_pools, block, CALLS, timeout=1.5, wall_timeout=2.0):
        assert step.error is None, step
        assert not step.timed_out
        assert step.seconds < 0.8


@pytest.mark.slow
@pytest.mark.identity
async def test_a_cell_that_computes_while_the_host_is_late_is_booked_and_stopped(level_pools: list[ReplPool]):
    """The positive control: lateness excuses no computing."""
    for step in await beside(level_pools, block_once, "while True: pass", timeout=0.4):
        assert step.timed_out
        assert step.seconds > 0.4


@pytest.mark.slow
async def test_a_cell_that_sleeps_too_long_is_stopped_though_the_host_is_late_now_and_then(level_pools: list[ReplPool]):
    for step in await beside(level_pools, block_often, "import time; time.sleep(60)", timeout=1.0):
        assert step.timed_out


@pytest.mark.slow
@pytest.mark.identity
async def test_threads_of_its_own_do_not_make_a_cell_cheaper(level_pools: list[ReplPool]):
    """A main thread that queues behind its own threads has not waited for a busy machine."""
    code = """
import hashlib, threading
def hog():
    while True: hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2_000_000)
for _ in range(6): threading.Thread(target=hog, daemon=True).start()
while True: hashlib.pbkdf2_hmac('sha256', b'x', b'y', 200_000)
"""
    for pool in level_pools:
        async with pool.open() as repl:
            process, cpu = repl._process, 0.0
            running = asyncio.create_task(repl.run(code, timeout=1.0, wall_timeout=30))
            while not running.done():
                cpu = max(cpu, process.cpu_seconds())
                await asyncio.sleep(0.05)
            step = await running
        assert step.timed_out
        assert step.seconds > 0.8
        assert cpu < 5.5  # on two cores: one second, two interrupts 0.3 s apart, and how fine the loop looks


WAITING_POOL = """
import hashlib
from multiprocessing.pool import ThreadPool
def work(_):
    for _ in range(10**6): hashlib.pbkdf2_hmac('sha256', b'x', b'y', 20_000)
with ThreadPool(4) as pool: pool.map(work, range(4))
"""


@pytest.mark.slow
@pytest.mark.identity
async def test_a_cell_whose_threads_wait_for_a_core_is_booked_what_they_computed():
    """Its main thread sleeps meanwhile. The core is full of programs of others."""
    core = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", spin], start_new_session=True) for _ in range(6)]  # noqa: ASYNC220
    try:
        async with await open_pool("guard", interrupt_grace=0.3, cpus=(core,)) as pool, pool.open() as repl:
            process, cpu = repl._process, 0.0
            began = time.monotonic()
            running = asyncio.create_task(repl.run(WAITING_POOL, timeout=None, wall_timeout=2.0))
            while not running.done():
                cpu = max(cpu, process.cpu_seconds())
                await asyncio.sleep(0.02)
            step = await running
            wall = time.monotonic() - began
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert step.timed_out
    assert cpu < wall / 2  # the others had their share
    assert cpu - 0.1 < step.seconds < cpu + (wall - cpu) / 2
