"""What a REPL can do to its host by the channel alone: size, number and contents of frames, at every isolation level.

Beside each attacker an honest REPL runs cells. The host's memory, the lag of its loop and the neighbor's bookings are
measured. The positive controls are honest batches of the same sizes, which go through.
"""

import asyncio
import json
import textwrap
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplPool, SubError
from tests.repl.levels import GUARD_FIRST, open_pool
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS = """
import os, struct, time
def text(s): return b'\\xdb' + struct.pack('>I', len(s)) + s
def data(s): return b'\\xc6' + struct.pack('>I', len(s)) + s
def number(n): return b'\\xcf' + struct.pack('>Q', n)
def frame(*fields): body = b''.join(fields); return struct.pack('<I', len(body)) + body
def batch(n, *items, total=None, start=0):
    return frame(b'\\xa5batch', number(n), number(total or len(items)), number(start), *items)
def send(raw, fd=4):
    view = memoryview(raw)
    while view: view = view[os.write(fd, view):]
"""
FORGED = {
    "64 MB of short texts": "send(struct.pack('<I', 64 * 2**20)); [send(b'\\xa2ab' * 2**18) for _ in range(85)]",
    "64 MB of nothing": "send(struct.pack('<I', 64 * 2**20)); [send(b'\\xc0' * 2**20) for _ in range(64)]",
    "64 MB of short texts, as a report": (
        "send(struct.pack('<I', 64 * 2**20), 3); [send(b'\\xa2ab' * 2**18, 3) for _ in range(85)]"
    ),
    "a frame within the limit, of a million fields": "send(frame(b'\\xc0' * 2**20))",
    "a report within the limit, of a million fields": "send(frame(b'\\xa2ab' * 2**20), 3)",
    "a report of more characters than can be": (
        "send(frame(b'\\xa4done', number(2), text(b''), number(2**64 - 1), b'\\xc0', b'\\xc0', b'\\xc2', b'\\x00'), 3)"
    ),
    "JSON of brackets": (
        "j = b'{\"messages\":[' + b'[],' * 5_000_000 + b'[]]}'; [send(batch(10**6, *[data(j)] * 3)) for _ in range(3)]"
    ),
    "JSON of brackets within the limit": (
        "j = b'{\"messages\":[' + b'{},' * 10_000 + b'{}]}'; send(batch(10**6, data(j), data(j)))"
    ),
    "a number of 4,000 digits": "send(batch(10**6, data(b'{\"prompt\": \"x\", \"n\": ' + b'9' * 4000 + b'}')))",
    "JSON that is nested deeply": "send(batch(10**6, data(b'{\"messages\":' + b'[' * 900 + b']' * 900 + b'}')))",
    "JSON with an endless number": 'send(batch(10**6, data(b\'{"prompt": "x", "n": 1e999}\')))',
    "prompts of no announced batch": "send(batch(10**6, text(b'x'), total=100_000))",
    "more than was announced": (
        "send(frame(b'\\xa8announce', number(10**6), number(2), number(1000)))\n"
        "for _ in range(64): send(frame(b'\\xa5piece', number(10**6), b'\\xc2', text(b'x' * 2**20)))"
    ),
    "an announcement of everything": "send(frame(b'\\xa8announce', number(10**6), number(2), number(2**60)))",
    "a frame of half its length": "send(frame(text(b'x' * 1000))[:-300] + b'\\xff' * 10**6)",
}


BY_IDENTITY = {
    "64 MB of short texts",
    "64 MB of short texts, as a report",
    "JSON of brackets within the limit",
    "more than was announced",
}
"""Some for each line: how a REPL is ended is a matter of who may signal whom, what a frame costs is not."""


async def echo(prompts: list) -> list:
    return [prompt if isinstance(prompt, str) else json.dumps(prompt) for prompt in prompts]


def resident() -> int:
    """Bytes of this process's memory that no file holds."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


class Bystander:
    """An honest REPL at work: what its cells are booked, and the longest turn of the host's loop meanwhile."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl
        self._stop = False
        self.lag = 0.0
        self.memory = 0
        self.steps: list = []

    async def __aenter__(self) -> "Bystander":
        self._before = resident()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._work())]
        await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)
        assert self.steps
        for step in self.steps:
            assert step.error is None, step
            assert step.seconds < 1.5, step

    async def _watch(self) -> None:
        while not self._stop:
            begin = time.thread_time()  # of this thread alone: other programs may have the machine's cores
            await asyncio.sleep(0.002)
            self.lag = max(self.lag, time.thread_time() - begin)
            self.memory = max(self.memory, resident() - self._before)

    async def _work(self) -> None:
        while not self._stop:
            self.steps.append(await self._repl.run("import time; time.sleep(0.02); llm_batch(['x'])", timeout=2))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=GUARD_FIRST)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ReplPool, Repl]]:
    """(pool, an honest REPL)"""
    pool = await open_pool(request.param, interrupt_grace=0.2)
    yield pool, await pool.open(llm_batch=echo)
    await pool.close()


@pytest.mark.parametrize(
    "attack", [pytest.param(name, marks=pytest.mark.identity) if name in BY_IDENTITY else name for name in FORGED]
)
async def test_forged_frames_cost_the_host_nothing_and_end_the_repl(arena, attack: str):
    pool, honest = arena
    async with pool.open(llm_batch=echo) as repl:
        await repl.run(TOOLS)
        attempt = textwrap.indent(FORGED[attack], "    ")
        async with Bystander(honest) as bystander:
            step = await repl.run(f"try:\n{attempt}\nexcept OSError: pass\ntime.sleep(30)", timeout=20)
        assert step.state_lost
        assert "protocol" in step.error
        assert bystander.memory < 40 * 2**20  # frames of up to 64 MB
        assert bystander.lag < 0.1
        assert repl.ends == [step.error.removeprefix("The REPL's process ").removesuffix(".")]
        assert (await repl.run("llm_batch(['again'])")).output == "['again']\n"


HONEST = {
    "64 MB in short texts": "llm_batch(['x' * 671] * 100_000) == ['x' * 671] * 100_000",
    "64 MB in one text": "p = ['x' * 2**26]; llm_batch(p) == p",
    "a wide text of 16 MB": "p = ['x' * (2**22 - 1) + '\\U0001f600']; llm_batch(p) == p",
    "a dict of 16 MB": "len(llm_batch([{'prompt': 'x' * 2**24}])[0]) == 2**24 + 14",
    "a chat with a long document": (
        "c = [{'role': 'system', 'content': 's' * 10}, {'role': 'user', 'content': 'd' * 10**6}]\n"
        "import json; llm_batch([{'messages': c}]) == [json.dumps({'messages': c})]"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", HONEST)
async def test_positive_control_honest_batches_of_such_sizes_go_through(arena, batch: str):
    pool, honest = arena
    async with pool.open(llm_batch=echo) as repl, Bystander(honest) as bystander:
        step = await repl.run(HONEST[batch], timeout=60)
        assert step.output == "True\n", step.error
    assert bystander.lag < 0.5  # echoing is the test's own work


FLOODS = {
    "refusals that nobody reads": (
        "while True: n += 200; send(b''.join(batch(i, b'\\xa1x') for i in range(n - 199, n + 1)))"
    ),
    "refusals that are read": ("while True:\n        try: llm_batch(['x'])\n        except RuntimeError: pass"),
    "frames of no batch": (
        "send(batch(1, b'\\xa1x'))\n    while True: send(frame(b'\\xa5piece', number(1), b'\\xc2', b'\\xa1x') * 200)"
    ),
    "wide frames of no batch": (
        "send(batch(1, b'\\xa1x'))\n    while True: send(batch(1, b'\\xa1x' * 32_000, total=100_000, start=1))"
    ),
    "announcements": (
        "while True: n += 200; send(b''.join(frame(b'\\xa8announce', number(i), number(1), number(100)) "
        "for i in range(n - 199, n + 1)))"
    ),
}


BY_WHOEVER = ("refusals that nobody reads", "wide frames of no batch")
"""The fast ones, which are repeated as another user."""


@pytest.mark.parametrize(
    "flood",
    [pytest.param(name, marks=pytest.mark.identity if name in BY_WHOEVER else pytest.mark.slow) for name in FLOODS],
)
async def test_a_flood_between_cells_ends_the_repl_and_the_record_says_so(arena, flood: str):
    pool, honest = arena
    async with pool.open(llm_batch=echo) as repl:
        thread = f"def flood():\n    n = 0\n    time.sleep(0.05)\n    {FLOODS[flood]}\n"
        step = await repl.run(f"{TOOLS}{thread}import threading; threading.Thread(target=flood, daemon=True).start()")
        assert step.error is None
        async with Bystander(honest) as bystander:
            await until(lambda: repl.pid is None)
        assert bystander.memory < 20 * 2**20
        assert bystander.lag < 0.1
        await until(lambda: repl.ends)
        assert len(repl.ends) == 1
        assert "protocol" in repl.ends[0]
        step = await repl.run("1 + 1")
        assert (step.output, step.state_lost) == ("2\n", True)


@pytest.mark.slow
async def test_positive_control_a_few_refused_batches_between_cells_are_told_and_harm_nothing(arena):
    pool, _ = arena
    async with pool.open(llm_batch=echo) as repl:
        code = """
import threading, time
told = []
def late():
    time.sleep(0.1)
    for _ in range(100):
        try: llm_batch(['x'])
        except Exception as error: told.append(str(error))
threading.Thread(target=late).start()
"""
        assert (await repl.run(code)).error is None
        await asyncio.sleep(1.5)
        step = await repl.run("len(told), told[0]")
        assert step.output == "(100, 'llm_batch can be called only while a cell runs')\n"
        assert repl.ends == []


DRIP = """
send(frame(b'\\xa8announce', number(10**6), number(2), number(1100 * 2**20)))
while True: send(frame(b'\\xa5piece', number(10**6), b'\\xc2', b'\\xa1x')); time.sleep(0.1)
"""


@pytest.mark.identity
async def test_a_batch_that_drips_is_its_own_time_and_others_have_the_room_then(arena):
    pool, honest = arena
    async with pool.open(llm_batch=echo) as repl:
        await repl.run(TOOLS)
        dripping = asyncio.create_task(repl.run(DRIP, timeout=1.0, wall_timeout=60))
        await until(lambda: pool._zygote.limits.prompts.used)
        step = await honest.run("len(llm_batch(['x' * 2**20] * 40))", timeout=5, wall_timeout=60)
        assert step.output == "40\n", step
        assert step.sub_llm_seconds > 0.5  # it has waited for the room
        step = await dripping
        assert step.timed_out
        assert "ran longer than 1 s" in step.error


UNREAD = """
for n in range(10**6, 10**6 + 300): send(frame(b'\\xa5batch', number(n), number(32_000), b'\\x00', b'\\xa1x' * 32_000))
print('all were taken')
"""


async def refuse(prompts: list) -> list:
    """A handler whose answers are many times as long as the prompts."""
    return [SubError("the budget of sub-calls of this rollout is used up, so there is no answer")] * len(prompts)


async def test_answers_that_nobody_reads_are_bounded(arena):
    pool, honest = arena
    async with pool.open(llm_batch=refuse) as repl, Bystander(honest) as bystander:
        await repl.run(TOOLS)
        step = await repl.run(UNREAD, timeout=1.0)
        assert step.timed_out, step  # waiting for a host that waits for it
        assert step.seconds >= 1.0
    assert bystander.memory < 200 * 2**20
    assert len(bystander.steps) >= 2


async def test_positive_control_answers_that_are_read_are_all_given(arena):
    pool, _ = arena
    async with pool.open(llm_batch=refuse) as repl:
        code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as workers: print(sum(map(len, workers.map(lambda _: llm_batch(['x'] * 32_000), range(20)))))
"""
        assert (await repl.run(code, timeout=30)).output == "640000\n"


async def test_a_flood_of_honest_calls_leaves_its_neighbors_their_turns(arena):
    pool, honest = arena
    async with pool.open(llm_batch=echo) as repl, Bystander(honest) as bystander:
        code = """
import time
from concurrent.futures import ThreadPoolExecutor
end = time.monotonic() + 0.7
def ask(_):
    n = 0
    while time.monotonic() < end: n += len(llm_batch(['x']))
    return n
with ThreadPoolExecutor(16) as workers: total = sum(workers.map(ask, range(16)))
"""
        step = await repl.run(code, timeout=10)
        assert step.error is None
    assert bystander.lag < 0.1
    assert len(bystander.steps) >= 5


@pytest.mark.slow
async def test_large_batches_of_many_repls_take_turns(arena):
    """All are answered, and what they hold of the host's memory at a time is bounded."""
    level = arena[0].report.level
    pool = await open_pool(level, pool_batch_mb=64)
    try:
        repls = [await pool.open(llm_batch=count) for _ in range(8)]
        async with Bystander(await pool.open(llm_batch=echo)) as bystander:
            steps = await asyncio.gather(
                *(repl.run("sum(map(int, llm_batch(['x' * 2**20] * 32))) == 2**25", timeout=20) for repl in repls)
            )
        assert [step.output for step in steps] == ["True\n"] * 8, steps
        assert bystander.memory < 120 * 2**20
        assert bystander.lag < 0.1
        waited = [step.seconds for step in steps]
        assert max(waited) < 10
    finally:
        await pool.close()


async def count(prompts: list) -> list:
    await asyncio.sleep(0.02)
    return [str(len(prompt)) for prompt in prompts]
