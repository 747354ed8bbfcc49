"""Cells: echo, state, errors, output, stopping."""

import asyncio
import os
import signal
import time

import pytest

from rlm_env.repl import Repl, ReplConfig, ReplError, ReplPool
from rlm_env.repl.host.cell_report import CellReport
from rlm_env.repl.host.lateness import Lateness
from rlm_env.repl.host.step import Step

STUBBORN = """
def spin():
    while True:
        pass
while True:
    try:
        spin()
    except BaseException:
        pass
"""


async def out(repl: Repl, code: str, **limits) -> str:
    step = await repl.run(code, **limits)
    assert step.error is None, step.error
    return step.output


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nx * 2", "6\n"),
        ("None", ""),
        ("x = 1", ""),
        ("for i in range(2): print(i)", "0\n1\n"),
        ("print('a', end=''); 'b'", "a'b'\n"),
        ("import sys; sys.stderr.write('oops'); None", "oops"),
        ("import sys; _ = sys.stdout.buffer.write('é'.encode())", "é"),
        ("import os; _ = os.write(1, b'raw')", "raw"),
        ("class A:\n    def f(self): return 1\nA().f()", "1\n"),
        ("_hidden = 4\n_hidden", "4\n"),
        ("import functools\n@functools.cache\ndef f(n): return n or f(n)\nf(2)", "2\n"),
        ("n = 1\ndef bump():\n    global n\n    n += 1\nbump()\nn", "2\n"),
        ("import asyncio\nawait asyncio.sleep(0)\n5", "5\n"),
        ("import asyncio\nasync def f(): return 6\nasyncio.run(f())", "6\n"),
        ("[x async for x in __import__('builtins').aiter(g())] if False else 7", "7\n"),
        (
            "import dataclasses, pickle\n@dataclasses.dataclass\nclass D:\n    a: int\n"
            "pickle.loads(pickle.dumps(D(8)))",
            "D(a=8)\n",
        ),
        ("print('\\ud800', '\\x00')", "\ufffd \x00\n"),
        ("__name__", "'__main__'\n"),
        ("", ""),
        ("# only a comment", ""),
    ],
)
async def test_cell(repl: Repl, code: str, output: str):
    assert await out(repl, code) == output


async def test_state_lasts_over_cells_and_errors(repl: Repl):
    await repl.run("def f(): return later")
    step = await repl.run("a = 1\nraise ValueError('no')\nb = 2")
    assert step.error.endswith("ValueError: no")
    assert await out(repl, "later = 5\na, f()") == "(1, 5)\n"
    assert "NameError" in (await repl.run("b")).error


async def test_tracebacks_are_short_and_name_cells(repl: Repl):
    await repl.run("def f(x):\n    return 1 / x")
    step = await repl.run("y = 0\nf(y)")
    lines = [line for line in step.error.splitlines() if line.strip(" ~^")]  # Python versions mark differently
    assert lines == [
        "Traceback (most recent call last):",
        '  File "<cell 2>", line 2, in <module>',
        "    f(y)",
        '  File "<cell 1>", line 2, in f',
        "    return 1 / x",
        "ZeroDivisionError: division by zero",
    ]
    step = await repl.run("x = = 1")
    assert 'File "<cell 3>", line 1' in step.error
    assert "SyntaxError" in step.error
    assert ".py" not in step.error, "no file of the interpreter stands in it"
    step = await repl.run("def r(n): return r(n + 1)\nr(0)")
    assert "RecursionError" in step.error
    assert len(step.error) < 2_000
    assert "rlm_env" not in step.error


async def test_chained_errors_show_their_cause(repl: Repl):
    step = await repl.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise RuntimeError('outer') from e")
    assert "KeyError: 'k'" in step.error
    assert "RuntimeError: outer" in step.error


@pytest.mark.parametrize("code", ["exit()", "quit(3)", "import sys; sys.exit('bye')", "raise SystemExit"])
async def test_exit_ends_the_cell_only(repl: Repl, code: str):
    await repl.run("kept = 1")
    step = await repl.run(code)
    assert "SystemExit" in step.error
    assert not step.state_lost
    assert await out(repl, "kept") == "1\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import sys; sys.stdout = None; sys.stderr = None",
        "import builtins; builtins.print = None; builtins.len = None; builtins.isinstance = None",
        "import os\nfor fd in range(256):\n    try: os.close(fd)\n    except OSError: pass",
        "import os; os.closerange(0, 4096)",
        "import sys; sys.settrace(lambda *a: 1 / 0)",
        "import sys; sys.setrecursionlimit(60)",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "raise KeyboardInterrupt",
        "import linecache, traceback; linecache.getline = traceback.format_exc = None",
        "import sys; sys.modules.clear()",
        "globals().clear()",
    ],
)
async def test_what_a_cell_breaks_is_mended(repl: Repl, code: str):
    await repl.run("kept = 'kept'")
    step = await repl.run(code)
    assert not step.state_lost, step.error
    after = await repl.run("print('still here')")
    assert after.output == "still here\n"
    assert not after.state_lost


async def test_output_is_bounded_and_tells_its_length(repl: Repl):
    step = await repl.run("print('a' * 5_000 + 'b' * 100_000 + 'c' * 5_000)")
    assert len(step.output) <= 8192
    assert step.output.startswith("aaa")
    assert step.output.endswith("ccc\n")
    assert "of 110,001 characters omitted" in step.output
    assert step.truncated_chars == 110_001 - (8192 - 80)
    many = await repl.run("for i in range(200_000): print(i)", timeout=30)
    assert many.output.startswith("0\n1\n")
    assert many.output.endswith("199998\n199999\n")
    assert len(many.output) <= 8192
    assert "omitted" in (await repl.run("'x' * 10**6")).output


async def test_fifty_megabytes_of_prints(repl: Repl):
    step = await repl.run("for _ in range(50): print('z' * 2**20)", timeout=60)
    assert len(step.output) <= 8192
    assert step.truncated_chars > 50 * 2**20 - 8192


async def test_input_is_refused(repl: Repl):
    assert "EOFError" in (await repl.run("input('name? ')")).error


async def test_timeout_interrupts_and_keeps_state(repl: Repl):
    await repl.run("kept = 1")
    for code in (
        "while True: pass",
        "import time; time.sleep(60)",
        "import threading; threading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
    ):
        step = await repl.run(code, timeout=0.3)
        assert step.timed_out
        assert not step.state_lost
        assert "TimeoutError" in step.error
        assert "KeyboardInterrupt" in step.error
        assert 0.25 < step.seconds < 5
    assert await out(repl, "kept") == "1\n"


async def test_what_ignores_interrupts_is_killed_and_replaced(repl: Repl):
    await repl.run("gone = 1; answer['content'] = 'so far'")
    pid = repl.pid
    step = await repl.run(STUBBORN, timeout=0.2)
    assert step.timed_out
    assert step.state_lost
    assert "killed" in step.error
    assert step.answer == {"content": "so far", "ready": False}
    after = await repl.run("context, answer, 'gone' in globals()")
    assert after.output == "('some text', {'content': 'so far', 'ready': False}, False)\n"
    assert not after.state_lost
    assert repl.pid != pid


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os._exit(7)", "exited with status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed"),
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV)"),
        ("import os; os.abort()", "crashed (SIGABRT)"),
    ],
)
async def test_death_is_noticed_at_once(repl: Repl, code: str, told: str):
    step = await asyncio.wait_for(repl.run(code, timeout=60), 10)
    assert step.state_lost
    assert not step.timed_out
    assert told in step.error
    assert await out(repl, "context") == "'some text'\n"


async def test_death_between_steps_is_told(repl: Repl):
    await repl.run("import threading, os, time\nx = 1")
    await repl.run("threading.Thread(target=lambda: (time.sleep(0.05), os._exit(3))).start()")
    await asyncio.sleep(0.4)
    step = await repl.run("1")
    assert step.state_lost
    assert step.output == "1\n"


async def test_cancelled_run_leaves_a_usable_repl(repl: Repl):
    await repl.run("kept = 1")
    task = asyncio.create_task(repl.run("while True: pass", timeout=60))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await out(repl, "kept") == "1\n"
    task = asyncio.create_task(repl.run(STUBBORN))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    step = await repl.run("'kept' in globals()")
    assert step.state_lost
    assert step.output == "False\n"


async def test_a_call_that_is_cancelled_while_it_waits_for_another(repl: Repl):
    await repl.run("kept = 1")
    first = asyncio.create_task(repl.run(STUBBORN, timeout=60))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.sleep(0.05)
    second = asyncio.create_task(repl.run("2"))  # waits until the first is stopped
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    step = await asyncio.wait_for(repl.run("3"), 10)
    assert step.output == "3\n"
    assert step.state_lost


async def test_steps_of_many_repls_run_side_by_side(pool: ReplPool):
    repls = await asyncio.gather(*(pool.open(context=f"c{i}", seed=i) for i in range(20)))
    for _ in range(3):
        steps = await asyncio.gather(*(r.run("context") for r in repls))
        assert [s.output for s in steps] == [f"'c{i}'\n" for i in range(20)]
    draws = await asyncio.gather(*(r.run("import random; random.random()") for r in repls))
    assert len({s.output for s in draws}) == 20
    async with pool.open(seed=0) as again:
        assert (await again.run("import random; random.random()")).output == draws[0].output
    await asyncio.gather(*(r.close() for r in repls))


@pytest.mark.slow
async def test_a_busy_machine_is_not_the_codes_fault():
    """Six cells on one core: each computes for less than its limit, and takes longer than that."""
    code = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass\n'done'"
    config = ReplConfig(preload=(), cpus=(min(os.sched_getaffinity(0)),))
    async with ReplPool(config) as pool:
        repls = [await pool.open() for _ in range(6)]
        begin = time.monotonic()
        steps = await asyncio.gather(*(repl.run(code, timeout=2.0) for repl in repls))
        assert time.monotonic() - begin > 3
        assert [step.output for step in steps] == ["'done'\n"] * 6
        assert all(step.seconds < 2 for step in steps)


async def test_closed_repls_and_pools_say_so():
    pool = await ReplPool(ReplConfig(preload=())).__aenter__()
    repl = await pool.open()
    await repl.close()
    await repl.close()
    with pytest.raises(ReplError, match="closed"):
        await repl.run("1")
    with pytest.raises(ReplError, match="not open"):
        await ReplPool().open()
    with pytest.raises(ReplError, match="not open"):
        _ = ReplPool().report
    await pool.close()
    with pytest.raises(ReplError, match="the pool is closed"):
        await pool.open()


async def test_bad_arguments_are_refused(repl: Repl):
    with pytest.raises(ValueError, match="timeout"):
        await repl.run("1", timeout=0)
    with pytest.raises(TypeError, match="code"):
        await repl.run(b"1")


async def test_threads_that_outlive_their_cell(repl: Repl):
    await repl.run(
        "import threading, time\nseen = []\n"
        "def work():\n"
        "    time.sleep(0.1); print('late')\n"
        "    try: llm_batch(['x'])\n"
        "    except Exception as e: seen.append(str(e))\n"
        "threading.Thread(target=work).start()"
    )
    await asyncio.sleep(0.4)
    step = await repl.run("seen")
    assert "late" in step.output
    assert "only while a cell runs" in step.output


async def test_output_of_child_processes_is_captured_where_they_are_allowed():
    async with ReplPool(ReplConfig(level="bare", allow_unsafe=True, preload=())) as pool, pool.open() as repl:
        step = await repl.run("import subprocess; subprocess.run('echo out; echo err >&2', shell=True).returncode")
        assert step.output == "0\nout\nerr\n"


async def test_a_killed_zygote_is_replaced():
    async with ReplPool(ReplConfig(preload=())) as pool, pool.open(context="again") as repl:
        await repl.run("x = 1")
        os.kill(pool.zygote_pid, signal.SIGKILL)
        for _ in range(100):
            step = await repl.run("x", timeout=5)
            if step.state_lost:
                break
            await asyncio.sleep(0.02)
        assert step.state_lost
        assert (await repl.run("context")).output == "'again'\n"
        async with pool.open() as other:
            assert (await other.run("1")).output == "1\n"


@pytest.mark.parametrize("end", ["died", "reported"])
async def test_a_call_that_is_cancelled_as_its_cell_ends_hangs_no_later_one(end):
    """The cancellation reaches the future first, then the end, then the call: nothing else would resolve it."""

    class Process:
        ended = asyncio.get_running_loop().create_future()

        def cpu_seconds(self) -> float:
            return 0.0

        queued_seconds = cpu_seconds

    report = CellReport("", 0, None, None, False, 0)
    step = Step(Process(), Lateness(), None, None, 1.0)
    step.report.cancel()
    if end == "died":
        Process.ended.set_result("died")
        await asyncio.sleep(0)
    else:
        step.done(report)
    step.abandon()
    assert await asyncio.wait_for(step.report, 5) == (None if end == "died" else report)
