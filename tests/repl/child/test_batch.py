"""`llm_batch`: items, order, failures, threads, clocks, hostile use."""

import asyncio
import time

import pytest

from rlm_env.repl import Repl, ReplConfig, ReplPool, SubError
from rlm_env.repl.host.batch_host import _answer_frames
from rlm_env.repl.wire import CHUNK, unpack


async def test_order_and_forms(repl: Repl):
    step = await repl.run(
        "r = llm_batch(['a', {'prompt': 'b', 'temperature': 0.5}, {'messages': [{'role': 'user', 'content': 'c'}]}])\n"
        "print(r, llm_batch(['']), llm_batch([]), llm_batch(x for x in 'de'), llm_batch(('\\ud800',)))"
    )
    assert step.error is None
    assert step.output == "['<a>', '<b>', '<c>'] ['<>'] [] ['<d>', '<e>'] ['<\ufffd>']\n"


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("'text'", "takes a list of prompts, not a str"),
        ("b'x'", "takes a list of prompts, not a bytes"),
        ("{'prompt': 'x'}", "takes a list of prompts, not a dict"),
        ("5", "takes a list of prompts, not a int"),
        ("['ok', 5]", "prompt 1 is a int"),
        ("[None]", "prompt 0 is a NoneType"),
        ("[{'text': 'x'}]", "either 'prompt'"),
        ("[{'prompt': 5}]", "it must be a str"),
        ("[{'messages': 'x'}]", "must be a list of dicts"),
        ("[{'messages': []}]", "must be a list of dicts"),
        ("[{'prompt': 'x', 'f': print}]", "only JSON-like"),
        ("[{'prompt': 'x', 'f': float('nan')}]", "which JSON cannot say"),
        ("[{'prompt': 'x', 1: 2}]", "keys must be str"),
        ("llm_batch(['fail'])", "prompt 0 is a failed sub-call"),
    ],
)
async def test_bad_items_are_refused_with_a_message(repl: Repl, argument: str, told: str):
    step = await repl.run(f"llm_batch({argument})")
    assert told in step.error
    assert (await repl.run("llm_batch(['a'])")).output == "['<a>']\n"


async def test_failed_items_are_no_answers(repl: Repl):
    await repl.run("good, bad = llm_batch(['x', 'fail'])")
    assert (await repl.run("print(good, bad, bool(bad), isinstance(bad, str))")).output == (
        "<x> <failed sub-call: told to fail> False False\n"
    )
    for use in (
        "bad + 'x'",
        "'x' + bad",
        "bad.strip()",
        "bad.split()",
        "bad[0]",
        "list(bad)",
        "len(bad)",
        "'x' in bad",
        "int(bad)",
    ):
        step = await repl.run(use)
        assert "told to fail" in step.error, use
    assert "expected str instance" in (await repl.run("''.join([bad])")).error
    assert (await repl.run("import copy, pickle; copy.deepcopy(bad), f'{bad}'")).error is None


async def test_answers_of_a_subclass_of_str_are_cut_into_frames_as_any_other():
    class Text(str):
        pass

    frames = _answer_frames(1, [Text("a" * CHUNK), SubError("none"), "b" * CHUNK], 3)
    assert [unpack(frame[4:])[2:] for frame in frames] == [[0, "a" * CHUNK], [1, b"none"], [2, "b" * CHUNK]]


async def test_handler_errors_are_one_exception():
    async def broken(prompts: list) -> list:
        if prompts[0] == "short":
            return []
        if prompts[0] == "type":
            return [5]
        raise ConnectionError("engine is down")

    async with ReplPool(ReplConfig(preload=())) as pool, pool.open(llm_batch=broken) as repl:
        assert "ConnectionError: engine is down" in (await repl.run("llm_batch(['a'])")).error
        assert "0 answers for 1 prompts" in (await repl.run("llm_batch(['short'])")).error
        assert "returned a int" in (await repl.run("llm_batch(['type'])")).error
        async with pool.open() as without:
            assert "name 'llm_batch' is not defined" in (await without.run("llm_batch(['a'])")).error


async def test_from_threads_functions_and_nested(repl: Repl):
    code = """
from concurrent.futures import ThreadPoolExecutor
def ask(i):
    first = llm_batch([f'{i}a', f'{i}b'])
    return llm_batch(first)
with ThreadPoolExecutor(16) as workers:
    results = list(workers.map(ask, range(200)))
results == [[f'<<{i}a>>', f'<<{i}b>>'] for i in range(200)]
"""
    step = await repl.run(code, timeout=60)
    assert step.output == "True\n", step.error
    step = await repl.run("import asyncio\nr = await asyncio.gather(asyncio.to_thread(llm_batch, ['t']))\nr")
    assert step.output == "[['<t>']]\n"


async def test_large_batches_in_both_directions(repl: Repl):
    code = """
prompts = [chr(97 + i % 26) * (2 ** 20 + i) for i in range(48)]
llm_batch(prompts) == [f'<{p}>' for p in prompts]
"""
    assert (await repl.run(code, timeout=60)).output == "True\n"
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as workers:
    rs = list(workers.map(lambda i: llm_batch([str(i) * 3 * 2 ** 20])[0] == f'<{str(i) * 3 * 2 ** 20}>', range(8)))
rs
"""
    assert (await repl.run(code, timeout=60)).output == f"{[True] * 8}\n"


async def test_many_small_items(repl: Repl):
    step = await repl.run("r = llm_batch([str(i) for i in range(5_000)])\nr == [f'<{i}>' for i in range(5_000)]")
    assert step.output == "True\n"


async def test_limits_have_messages():
    async def echo(prompts: list) -> list:
        return [str(p) for p in prompts]

    config = ReplConfig(preload=(), max_batch_items=10, max_batch_bytes=1000)
    async with ReplPool(config) as pool, pool.open(llm_batch=echo) as repl:
        assert "at most 10 prompts" in (await repl.run("llm_batch(['x'] * 11)")).error
        assert "limit of 1,000" in (await repl.run("llm_batch(['x' * 1001])")).error
        assert (await repl.run("llm_batch(['x'] * 10)")).error is None


def slow(seconds: float, started: list | None = None, cancelled: list | None = None):
    async def handler(prompts: list) -> list:
        if started is not None:
            started.append(len(prompts))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.append(len(prompts))
            raise
        return ["ok" for _ in prompts]

    return handler


async def test_waiting_is_not_code_time(pool: ReplPool):
    async with pool.open(llm_batch=slow(0.6)) as repl:
        step = await repl.run("llm_batch(['a'])", timeout=0.3)
        assert not step.timed_out, step.error
        assert 0.5 < step.sub_llm_seconds < 3
        assert step.seconds < 0.3


async def test_computing_behind_a_waiting_batch_is_code_time(pool: ReplPool):
    async with pool.open(llm_batch=slow(30)) as repl:
        begin = time.monotonic()
        code = "import threading\nthreading.Thread(target=llm_batch, args=(['x'],)).start()\nwhile True: pass"
        step = await repl.run(code, timeout=0.5)
        assert step.timed_out
        assert time.monotonic() - begin < 10


async def test_wall_timeout_cancels_the_handler(pool: ReplPool):
    cancelled = []
    async with pool.open(llm_batch=slow(60, cancelled=cancelled)) as repl:
        await repl.run("kept = 1")
        step = await repl.run("llm_batch(['a', 'b'])", timeout=5, wall_timeout=0.4)
        assert step.timed_out
        assert not step.state_lost
        assert "waiting included" in step.error
        assert cancelled == [2]
        assert (await repl.run("kept")).output == "1\n"


async def test_caught_interrupt_in_a_batch_leaves_the_channel_whole(pool: ReplPool):
    async with pool.open(llm_batch=slow(0.3)) as repl:
        code = "try:\n    llm_batch(['a'])\nexcept KeyboardInterrupt:\n    print('caught')\nprint(llm_batch(['b']))"
        step = await repl.run(code, timeout=5, wall_timeout=0.1)
        assert step.timed_out
        step = await repl.run("llm_batch(['c'])")
        assert step.output == "['ok']\n"


async def test_a_stopped_cell_cannot_ask_for_more(pool: ReplPool):
    asked = []
    async with pool.open(llm_batch=slow(60, started=asked)) as repl:
        code = "try:\n    llm_batch(['a'])\nexcept BaseException:\n    llm_batch(['one more'] * 5)"
        step = await repl.run(code, timeout=5, wall_timeout=0.2)
        assert step.timed_out
        assert "only while a cell runs" in step.error
        assert asked == [1]


async def test_a_cancelled_run_cancels_its_batches(pool: ReplPool):
    started, cancelled = [], []
    async with pool.open(llm_batch=slow(60, started, cancelled)) as repl:
        task = asyncio.create_task(repl.run("x = llm_batch(['a'])"))
        await asyncio.sleep(0.3)
        assert started == [1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        step = await asyncio.wait_for(repl.run("'x' in globals()"), 10)
        assert step.output == "False\n"
        assert cancelled == [1]


@pytest.mark.slow
async def test_two_hundred_interrupts_in_batches(pool: ReplPool):
    """Traps at random points of large frames: the channel must never lose its step."""

    async def mixed(prompts: list) -> list:
        await asyncio.sleep(0.002)
        return [p if len(p) > 5 else SubError("x") for p in prompts]

    async with pool.open(llm_batch=mixed) as repl:
        await repl.run("big = ['p' * 300_000] * 4\nn = 0")
        for i in range(200):
            step = await repl.run(
                "while True:\n    n += llm_batch(big) == big", timeout=30, wall_timeout=0.01 + i % 13 / 700
            )
            assert step.timed_out
            assert not step.state_lost, (i, step.error)
        step = await repl.run("llm_batch(big) == big, n > 0")
        assert step.output == "(True, True)\n"
