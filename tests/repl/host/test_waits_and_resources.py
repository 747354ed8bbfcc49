"""Every wait of the host has a clock, and what it runs out of is a ReplError with a remedy."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from rlm_env.repl import Repl, ReplConfig, ReplError, ReplPool, SandboxError
from rlm_env.repl.config import LEVELS
from rlm_env.repl.host.step import Step
from rlm_env.repl.host.zygote_client import ZygoteClient
from tests.repl.levels import GUARD_FIRST, open_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


def zygote(pool: ReplPool) -> int:
    """The zygote itself: at level jail, bubblewrap is its parent."""
    pid = pool.zygote_pid
    while Path(f"/proc/{pid}/comm").read_text() == "bwrap\n":
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


async def stop(pool: ReplPool) -> None:
    """Stops the zygote once it waits for work: in the middle of a fork it would hold the channel of the new process."""
    pid = zygote(pool)
    for _ in range(1000):
        if ") S " in Path(f"/proc/{pid}/stat").read_text():  # noqa: ASYNC240
            break
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGSTOP)


async def opened(pool: ReplPool) -> Repl:
    return await pool.open()


async def timed(call) -> tuple[object, float]:
    begin = time.monotonic()
    try:
        result: object = await asyncio.wait_for(call, 30)
    except ReplError as error:
        result = error
    return result, time.monotonic() - begin


async def test_a_cell_that_has_ended_is_forgotten():
    """A REPL lives for thousands of cells, whose output must not stay in the host's memory."""

    def steps() -> int:
        return sum(isinstance(thing, Step) for thing in gc.get_objects())

    before = steps()
    async with ReplPool(ReplConfig(preload=())) as pool, pool.open() as repl:
        for _ in range(20):
            await repl.run("1")
        assert steps() <= before + 1


@pytest.mark.slow
@pytest.mark.identity
async def test_a_stopped_zygote_holds_up_nobody():
    """At every level at the same time, since this is mostly waiting."""
    missing = [skipped for skipped in await asyncio.gather(*map(hold_up_nobody, LEVELS)) if skipped is not None]
    if missing:
        raise missing[0]


async def hold_up_nobody(level: str) -> BaseException | None:
    """The outcome of a level that does not work here; None where all is well."""
    try:
        stopped = await open_pool(level, interrupt_grace=0.2)
    except pytest.skip.Exception as skipped:
        return skipped
    repl = await stopped.open(context="c")
    patient, stopped.config = stopped.config, replace(stopped.config, start_timeout=1.0)
    assert (await repl.run("kept = 1; kept")).output == "1\n"  # the positive control
    await stop(stopped)
    error, seconds = await timed(stopped.open())
    assert isinstance(error, ReplError)
    assert "start_timeout" in str(error)
    assert seconds < 3
    assert (await repl.run("kept")).output == "1\n"
    step, seconds = await timed(repl.run("import os; os._exit(1)"))
    assert step.state_lost
    assert "ended; its parent did not tell how" in step.error
    assert seconds < 4
    error, seconds = await timed(repl.run("1", timeout=1, wall_timeout=0.5))
    assert "no process was ready within 0.5 s" in str(error)
    assert seconds < 2.5
    shared = await stopped.share("x" * 100)
    error, seconds = await timed(stopped.open(context=shared))
    assert isinstance(error, ReplError)
    assert seconds < 3
    await shared.close()
    stopped.config = patient
    os.kill(zygote(stopped), signal.SIGCONT)
    assert (await repl.run("context")).output == "'c'\n"
    async with stopped.open() as other:
        assert (await other.run("1")).output == "1\n"
    begin = time.monotonic()
    await repl.close()
    assert time.monotonic() - begin < 3
    await stopped.close()
    return None


@contextlib.contextmanager
def no_processes(pool: ReplPool) -> Iterator[None]:
    """Within it, the system gives the zygote no more processes; root has no such limit, and gets its reply."""
    if os.geteuid() != 0:
        limits = resource.prlimit(zygote(pool), resource.RLIMIT_NPROC)
        resource.prlimit(zygote(pool), resource.RLIMIT_NPROC, (1, limits[1]))
        yield
        resource.prlimit(zygote(pool), resource.RLIMIT_NPROC, limits)
        return

    async def refuse(_zygote: ZygoteClient, request: dict, _fds: tuple) -> tuple[dict, list]:
        assert request["op"] in ("fork", "group")
        return {"op": "failed", "errno": errno.EAGAIN, "error": os.strerror(errno.EAGAIN)}, []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZygoteClient, "_ask", refuse)
        yield


@pytest.mark.identity
@pytest.mark.parametrize("level", GUARD_FIRST)
async def test_a_zygote_that_gets_no_processes_says_so(level: str):
    async with await open_pool(level) as pool, await pool.share("x" * 100) as shared:
        with no_processes(pool):
            for context in (None, shared):
                with pytest.raises(
                    ReplError, match=r"no REPL can be forked: no more processes .*: close REPLs, or raise"
                ):
                    await pool.open(context=context)
        async with pool.open(context=shared) as repl:
            assert (await repl.run("len(context)")).output == "100\n"


@pytest.mark.parametrize("where", ["the host", "the zygote"])
async def test_a_want_of_processes_says_nothing_about_a_level(monkeypatch: pytest.MonkeyPatch, where: str):
    """Otherwise a machine that is busy for a moment would be given a lower one."""
    if where == "the host":
        refused = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=refused))
    else:
        reply = {"op": "self-tested", "errno": errno.EAGAIN, "error": os.strerror(errno.EAGAIN)}
        monkeypatch.setattr(ZygoteClient, "_ask", AsyncMock(return_value=(reply, [])))
    with pytest.raises(ReplError, match="the zygote cannot be started: no more processes") as told:
        await ReplPool(ReplConfig(preload=(), level="best", allow_unsafe=True)).__aenter__()
    assert not isinstance(told.value, SandboxError)


async def test_a_zygote_that_is_killed_is_told_and_replaced():
    async with await open_pool("guard") as pool:
        await stop(pool)
        opening = asyncio.create_task(opened(pool))
        await asyncio.sleep(0.05)
        os.kill(zygote(pool), signal.SIGKILL)
        with pytest.raises(ReplError, match=r"it was killed, for example for want of memory\); the next call starts"):
            await opening
        async with pool.open() as repl:
            assert (await repl.run("1")).output == "1\n"


@pytest.mark.parametrize("level", GUARD_FIRST)
async def test_how_a_process_ended_is_known_where_its_parent_is_late_to_tell(level: str):
    async with await open_pool(level) as pool:
        for code, told in (
            ("os._exit(7)", "exited with status 7"),
            ("os.kill(os.getpid(), 9)", "was killed"),
        ):
            async with pool.open() as repl:
                await repl.run("import os")
                os.kill(zygote(pool), signal.SIGSTOP)
                asyncio.get_running_loop().call_later(0.4, os.kill, zygote(pool), signal.SIGCONT)
                step = await repl.run(code, timeout=60)
                assert told in step.error


@pytest.mark.slow
async def test_a_cell_that_pretends_to_have_ended_does_not_stop_the_next_one_for_long():
    """With checkpoints the process is asked to fork first, and it does not answer."""
    config = ReplConfig(preload=(), allow_fork=True, checkpoint=True, interrupt_grace=0.2)
    async with ReplPool(config) as pool, pool.open() as repl:
        await repl.run("kept = 1")
        forged = (
            "import os, msgpack, struct, time\nfields = ['done', 2, '', 0, None, None, False, 0]\n"
            "b = b''.join(map(msgpack.packb, fields))\nos.write(3, struct.pack('<I', len(b)) + b)\n"
            "while True:\n    try: time.sleep(100)\n    except BaseException: pass"
        )
        await repl.run(forged, timeout=5)
        step, seconds = await timed(repl.run("1", timeout=0.7, wall_timeout=1.5))
        assert step.timed_out or step.state_lost, step
        assert seconds < 4
        assert (await repl.run("1 + 1", timeout=5)).output == "2\n"


FEW = """
import asyncio, resource, sys, os
from collections import Counter
from rlm_env.repl import ReplConfig, ReplError, ReplPool
async def echo(prompts): return prompts
async def main():
    config = ReplConfig(preload=(), level=sys.argv[1], require=sys.argv[1], allow_unsafe=True)
    async with ReplPool(config) as pool:
        keep = await pool.open()
        await keep.run('mine = 1')
        before = len(os.listdir('/proc/self/fd'))
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        async def one():
            try:
                async with pool.open(context='x' * 100, llm_batch=echo) as repl:
                    await repl.run('1')
                    await asyncio.sleep(0.5)
                return 'ok'
            except ReplError as error:
                return str(error)
        told = Counter(await asyncio.gather(*(one() for _ in range(60))))
        assert told.pop('ok'), told  # how many is a matter of how many begin at once
        assert told
        for text in told:
            assert 'as many files open as it may (100): close REPLs, or raise `ulimit -n`' in text, text
        assert (await keep.run('mine')).output == '1\\n'
        async with pool.open() as repl: assert (await repl.run('2')).output == '2\\n'
        await asyncio.sleep(0.3)
        assert len(os.listdir('/proc/self/fd')) == before
    print('fine')
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.identity
@pytest.mark.parametrize("level", GUARD_FIRST)
async def test_descriptors_that_run_out_are_told_and_none_is_lost(level: str):
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FEW, level], capture_output=True, text=True, timeout=120
    )
    if "SandboxError" in done.stderr:
        pytest.skip(f"isolation level {level} does not work here")
    assert done.stdout == "fine\n", done.stderr[-3000:]


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Within it, the system gives this process no more threads; root has no such limit, and gets its error."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() != 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, limits[1]))
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread(target=int).start()
        yield
        resource.setrlimit(resource.RLIMIT_NPROC, limits)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


@pytest.mark.identity
@pytest.mark.parametrize("level", GUARD_FIRST)
async def test_a_host_that_gets_no_threads_says_so_and_waits_for_nothing(level: str):
    pool = await open_pool(level, tmp_mb=0 if level == "sealed" else 1)
    with no_threads():
        for opening in (pool.open(), pool.open(context="x" * 2**21)):
            with pytest.raises(ReplError, match="no more processes or threads are allowed here: close REPLs"):
                await asyncio.wait_for(opening, 30)
    repl = await pool.open(context="c")
    with no_threads():
        for code, output in (("1 + 1", "2\n"), ("import os; os._exit(3)", ""), ("context", "'c'\n")):
            step = await asyncio.wait_for(repl.run(code), 30)
            assert step.output == output, step
        await asyncio.wait_for(repl.close(), 30)
        await asyncio.wait_for(pool.close(), 30)
    assert not Path(f"/proc/{pool.zygote_pid}").exists()  # noqa: ASYNC240


async def test_a_kernel_without_memory_files_is_told(monkeypatch: pytest.MonkeyPatch):
    def missing(*_arguments: object) -> int:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(os, "memfd_create", missing)
    with pytest.raises(SandboxError, match="Function not implemented"):
        await ReplPool(ReplConfig(preload=())).__aenter__()


async def test_a_mistake_of_the_callers_stays_what_it_is():
    async with ReplPool(ReplConfig(preload=())) as pool:
        with pytest.raises(FileNotFoundError):
            await pool.open(context=Path("/nowhere/to/be/found"))
