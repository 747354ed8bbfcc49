"""Forks, checkpoints, and contexts shared by a group."""

import asyncio
import os
import signal

import pytest

from rlm_env.repl import Repl, ReplConfig, ReplError, ReplPool
from tests.repl.levels import GUARD_FIRST, open_pool
from tests.waiting import until


async def ask(prompts: list) -> list:
    return [f"<{p}>" for p in prompts]


def config(**options) -> ReplConfig:
    return ReplConfig(preload=(), interrupt_grace=0.2, allow_fork=True, **options)


@pytest.mark.identity
@pytest.mark.parametrize("level", GUARD_FIRST)
async def test_a_fork_has_the_same_state_and_its_own_life(level: str):
    async with await open_pool(level, allow_fork=True) as pool:
        repl = await pool.open(context=["c"], llm_batch=ask)
        await repl.run("x = [1]\ndef f(): return x\nanswer['content'] = 'draft'")
        fork = await repl.fork()
        await repl.run("x.append('parent')")
        step = await fork.run("x.append('fork'); print('shown'); f(), context, llm_batch(['q'])")
        assert step.output == "shown\n([1, 'fork'], ['c'], ['<q>'])\n"
        assert step.answer["content"] == "draft"
        assert (await repl.run("x")).output == "[1, 'parent']\n"
        third = await fork.fork()
        await repl.close()
        await fork.close()
        assert (await third.run("x")).output == "[1, 'fork']\n"
        step = await third.run("import os; os._exit(4)")
        assert "exited with status 4" in step.error
        assert (await third.run("context")).output == "['c']\n"


async def test_forks_draw_the_same_numbers_unless_seeded():
    async with ReplPool(config()) as pool, pool.open(seed=7) as repl:
        await repl.run("import random; random.random()")
        forks = [await repl.fork(), await repl.fork(), await repl.fork(seed=1), await repl.fork(seed=2)]
        drawn = [(await fork.run("random.random()")).output for fork in forks]
        assert drawn[0] == drawn[1] == (await repl.run("random.random()")).output
        assert len(set(drawn)) == 3


async def test_a_repl_with_threads_refuses():
    async with ReplPool(config()) as pool, pool.open() as repl:
        await repl.run("import threading, time; t = threading.Thread(target=time.sleep, args=(0.3,)); t.start()")
        with pytest.raises(ReplError, match="threads are running"):
            await repl.fork()
        assert (await repl.run("t.join(); 5")).output == "5\n"
        fork = await repl.fork()
        assert (await fork.run("6")).output == "6\n"


async def test_fork_needs_permission(repl: Repl):
    with pytest.raises(ReplError, match="allow_fork"):
        await repl.fork()
    with pytest.raises(ValueError, match="allow_fork"):
        ReplConfig(checkpoint=True)


@pytest.mark.identity
async def test_ordinary_forks_stay_denied_with_allow_fork():
    async with ReplPool(config()) as pool, pool.open() as repl:
        for code in ("import os; os.fork()", "import subprocess; subprocess.run(['true'])"):
            assert "single process" in (await repl.run(code)).error
        step = await repl.run(
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.fork(), ctypes.get_errno()"
        )
        assert step.output == "(-1, 1)\n"
        step = await repl.run("libc.prctl(1, 0), libc.prctl(1, 15)")
        assert step.output == "(-1, -1)\n"


@pytest.mark.identity
@pytest.mark.parametrize("level", GUARD_FIRST)
async def test_a_killed_step_is_undone(level: str):
    options = {"allow_fork": True, "checkpoint": True, "interrupt_grace": 0.2}
    async with await open_pool(level, **options) as pool, pool.open() as repl:
        await repl.run("x = 1; answer['content'] = 'kept'")
        for code, timeout in (("x = 2; import os; os._exit(1)", 60), ("x = 3; sum(range(10**13))", 0.3)):
            step = await repl.run(code, timeout=timeout)
            assert not step.state_lost
            assert "is undone" in step.error
            assert step.answer["content"] == "kept"
        step = await repl.run("x")
        assert (step.output, step.error) == ("1\n", None)
        assert (await repl.run("x += 1; x")).output == "2\n"
        await repl.run("import threading, time; threading.Thread(target=time.sleep, args=(5,)).start()")
        step = await repl.run("import os; os._exit(1)")  # the thread prevents a checkpoint
        assert step.state_lost


async def test_a_slow_checkpoint_is_waited_for_however_short_the_cells_own_limit():
    async with ReplPool(config(checkpoint=True)) as pool, pool.open() as repl:
        await repl.run("x = 1")
        os.kill(repl.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.4, os.kill, repl.pid, signal.SIGCONT)
        step = await repl.run("x = 2; sum(range(10**13))", timeout=0.1)
        assert not step.state_lost
        assert (await repl.run("x", timeout=60)).output == "1\n"


@pytest.mark.identity
async def test_no_process_is_left_behind():
    async with ReplPool(config(checkpoint=True)) as pool:
        repl = await pool.open()
        forks = [await repl.fork() for _ in range(5)]
        await asyncio.gather(*(t.run("1") for t in forks))
        pids = [t.pid for t in [repl, *forks]]
        await repl.run("1")
    await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


@pytest.mark.identity
async def test_a_group_shares_its_context(pool: ReplPool):
    await (await pool.open()).close()  # what the pool itself keeps open is open now
    before = len(os.listdir("/proc/self/fd"))
    async with await pool.share({"k": ["v"] * 3}) as shared:
        repls = [await pool.open(context=shared, seed=i) for i in range(4)]
        await repls[0].run("context['k'].append('only here')")
        outputs = [(await r.run("len(context['k'])")).output for r in repls]
        assert outputs == ["4\n", "3\n", "3\n", "3\n"]
        await repls[1].run("import os; os._exit(1)")
        assert (await repls[1].run("context")).output == "{'k': ['v', 'v', 'v']}\n"
    assert (await repls[2].run("len(context)")).output == "1\n"  # the group ends with its last REPL
    with pytest.raises(ReplError, match="closed"):
        await pool.open(context=shared)
    for r in repls:
        await r.close()
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)


async def test_large_shared_context_is_exact(pool: ReplPool):
    text = "é\r\n🙂\ud800" * 2_000_000
    shared = await pool.share(text)
    async with pool.open(context=shared) as repl:
        code = f"len(context), context[:5] * 3 == context[:15], context[-5:] == {text[-5:]!r}"
        assert (await repl.run(code)).output == f"({len(text)}, True, True)\n"
    await shared.close()


@pytest.mark.identity
async def test_cancelled_forks_and_opens_leave_nothing():
    async with ReplPool(config()) as pool, pool.open() as repl:
        await repl.run("x = 'here'")
        before = len(os.listdir("/proc/self/fd"))
        for delay in (0, 0, 0.0005, 0.001, 0.002, 0.003, 0.005):
            for what in (repl.fork(), pool._open("c" * 1000, None, 0)):
                task = asyncio.ensure_future(what)
                await asyncio.sleep(delay)
                task.cancel()
                done = (await asyncio.gather(task, return_exceptions=True))[0]
                if isinstance(done, Repl):
                    await done.close()
        assert (await repl.run("x")).output == "'here'\n"
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)
