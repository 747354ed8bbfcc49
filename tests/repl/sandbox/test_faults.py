"""Faults of model code, at every isolation level of this machine: after each, the host lives, siblings are untouched,
and the state is either kept or reported lost."""

import asyncio
import os
import time

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplPool
from tests.repl.levels import GUARD_FIRST, open_pool

KEPT, LOST, EITHER = "kept", "lost", "either"
FAULTS = {
    # name: (cell, outcome, a part of the error or None, timed out)
    "busy loop": ("while True: pass", KEPT, "TimeoutError", True),
    "sleep": ("import time; time.sleep(100)", KEPT, "TimeoutError", True),
    "C loop that ignores signals": ("sum(range(10**13))", LOST, "did not react", True),
    "big power": ("7**10**8", KEPT, "TimeoutError", True),
    "catastrophic regex": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", KEPT, "TimeoutError", True),
    "eats every exception": (
        "def spin():\n    while True: pass\nwhile True:\n    try: spin()\n    except BaseException: pass",
        LOST,
        "did not react",
        True,
    ),
    "ignores SIGINT": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        LOST,
        "did not react",
        True,
    ),
    "blocks SIGINT": (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nwhile True: pass",
        LOST,
        "did not react",
        True,
    ),
    "handler that spins": (
        "import signal\ndef spin(*a):\n    while True: pass\nsignal.signal(signal.SIGINT, spin)\nwhile True: pass",
        LOST,
        "did not react",
        True,
    ),
    "deadlocked lock": ("import threading; l = threading.Lock(); l.acquire(); l.acquire()", KEPT, "TimeoutError", True),
    "join of a stuck thread": (
        "import threading as h, time; t = h.Thread(target=time.sleep, args=(100,), daemon=True); t.start(); t.join()",
        KEPT,
        "TimeoutError",
        True,
    ),
    "finally that spins": ("try:\n    while True: pass\nfinally:\n    while True: n = 1", EITHER, None, True),
    "asyncio that never ends": ("import asyncio\nawait asyncio.Event().wait()", KEPT, "TimeoutError", True),
    "memory by list": ("x = []\nwhile True: x.append(bytearray(2**20))", KEPT, "MemoryError", False),
    "memory at once": ("x = [0] * 10**10", KEPT, "MemoryError", False),
    "memory by str": ("x = 'x' * 10**11", KEPT, "MemoryError", False),
    "memory by mmap": (
        "import mmap; maps = []\nwhile True: maps.append(mmap.mmap(-1, 2**26))",
        KEPT,
        "Cannot allocate memory",
        False,
    ),
    "memory by threads": (
        "import threading\ndef hog():\n    x = []\n    while True: x.append(bytearray(2**20))\n"
        "ts = [threading.Thread(target=hog) for _ in range(10)]\n[t.start() for t in ts]; [t.join() for t in ts]; None",
        KEPT,
        None,
        False,
    ),
    "many threads": (
        "import threading, time\nts = []\nwhile True:\n"
        "    t = threading.Thread(target=time.sleep, args=(0.2,), daemon=True)\n    t.start(); ts.append(t)",
        KEPT,
        None,
        None,
    ),
    "deep recursion": ("def f(): f()\nf()", KEPT, "RecursionError", False),
    "recursion without a limit": (
        "import sys; sys.setrecursionlimit(10**7)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        EITHER,  # newer versions of Python notice it in C code as well
        None,
        False,
    ),
    "recursion a million deep": (
        "import sys; sys.setrecursionlimit(10**7)\ndef f(n): return n and f(n - 1)\nf(10**6)",
        EITHER,
        None,
        False,
    ),
    "os._exit": ("import os; os._exit(9)", LOST, "exited with status 9", False),
    "SIGKILL of itself": ("import os; os.kill(os.getpid(), 9)", LOST, "was killed", False),
    "SIGSTOP of itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", LOST, "did not react", True),
    "SIGTERM of itself": ("import os; os.kill(os.getpid(), 15)", LOST, "SIGTERM", False),
    "sys.exit": ("import sys; sys.exit(3)", KEPT, "SystemExit", False),
    "segfault": ("import ctypes; ctypes.string_at(0)", LOST, "SIGSEGV", False),
    "corrupted interpreter": ("import ctypes; ctypes.memset(id(None), 0, 16)", LOST, "crashed", None),
    "stdout closed": ("import sys; sys.stdout.close(); sys.stderr.close()", KEPT, None, False),
    "print gone": ("import builtins; builtins.print = None", KEPT, None, False),
    "builtins emptied": ("import builtins; vars(builtins).clear()", KEPT, None, False),
    "every descriptor closed": (
        "import os\nfor fd in range(64):\n    try: os.close(fd)\n    except OSError: pass",
        EITHER,
        None,
        False,
    ),
    "descriptors used up": ("import os\nfds = []\nwhile True: fds += os.pipe()", KEPT, "Too many open files", False),
    "garbage on every descriptor": (
        "import os\nfor fd in range(3, 32):\n    try: os.write(fd, b'garbage ' * 100)\n    except OSError: pass",
        LOST,
        "protocol",
        False,
    ),
    "a half frame": ("import os; os.write(3, b'\\x10\\0\\0\\0ab')", EITHER, None, None),
    "a huge frame": ("import os; os.write(3, b'\\xff\\xff\\xff\\xff')", LOST, "protocol", False),
    "a forged report": (
        "import os, msgpack, struct\nfields = ['done', 10**6, 'x', 1, None, 'hacked', True, 0]\n"
        "b = b''.join(map(msgpack.packb, fields))\nos.write(3, struct.pack('<I', len(b)) + b)",
        LOST,
        "protocol",
        False,
    ),
    "a forged batch": (
        "import os, msgpack, struct\nb = b''.join(map(msgpack.packb, ['batch', 1, 2**40, 0, 'x']))\n"
        "os.write(4, struct.pack('<I', len(b)) + b)\nimport time; time.sleep(5)",
        LOST,
        "protocol",
        False,
    ),
    "nested arrays in a frame": (
        "import os, struct\nb = b'\\xdd\\x00\\xff\\xff\\xff' * 1000\nos.write(4, struct.pack('<I', len(b)) + b)\n"
        "import time; time.sleep(5)",
        LOST,
        "protocol",
        False,
    ),
    "its channel read dry": (
        "import os, threading\nthreading.Thread(target=lambda: os.read(3, 10), daemon=True).start()",
        EITHER,
        None,
        None,
    ),
    "input": ("input('your name? ')", KEPT, "EOFError", False),
    "fifty megabytes of prints": ("for _ in range(50): print('x' * 2**20)", KEPT, None, False),
    "fifty megabytes past Python": (
        "import os\nfor _ in range(50): os.write(1, b'x' * 2**20)",
        KEPT,
        None,
        False,
    ),
    "more output than the file may hold": (
        "import os\nfor _ in range(500): os.write(1, b'x' * 2**20)",
        KEPT,
        "File too large",
        False,
    ),
    "surrogates and NUL": ("print('\\ud800\\x00'); raise ValueError('\\udfff\\x00')", KEPT, "ValueError", False),
    "not utf-8 past Python": ("import os; _ = os.write(2, b'\\xff\\xfe\\x00')", KEPT, None, False),
    "an exception that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise E\nraise E",
        KEPT,
        "E",
        False,
    ),
    "a repr that fails": ("class R:\n    def __repr__(self): raise SystemExit\nR()", KEPT, "SystemExit", False),
    "an endless repr": ("class R:\n    def __repr__(self):\n        while True: pass\nR()", KEPT, "TimeoutError", True),
    "monkey-patched modules of ours": (
        "import gc, types\nfor f in gc.get_objects():\n"
        "    if isinstance(f, types.FunctionType) and 'rlm_env' in (f.__module__ or ''):\n"
        "        f.__code__ = (lambda *a, **k: None).__code__",
        EITHER,
        None,
        None,
    ),
    "patched standard library": (
        "import json, os, socket, traceback, linecache, time, asyncio\n"
        "for m in (json, os, socket, traceback, linecache, time, asyncio):\n"
        "    for k in list(vars(m)):\n        if not k.startswith('__'): setattr(m, k, None)",
        KEPT,
        None,
        False,
    ),
    "limits lifted": (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        KEPT,
        "ValueError",
        False,
    ),
    "forks in a loop, the cap on processes set first": (
        "import os, resource\ntry: resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))\nexcept Exception: pass\n"
        "for _ in range(50):\n    if os.fork() == 0: os._exit(0)",
        KEPT,
        "single process",
        False,
    ),
    "alarms": ("import signal; signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)", EITHER, None, False),
    "a timer that strikes later": (
        "import signal\ndef strike(*a): raise RuntimeError('later')\nsignal.signal(signal.SIGALRM, strike)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)",
        KEPT,
        None,
        False,
    ),
    "tracing": ("import sys; sys.settrace(lambda *a: 1 / 0); sys.setprofile(lambda *a: 1 / 0)", EITHER, None, False),
    "context and answer gone": ("del context, answer", KEPT, None, False),
    "a gigabyte of answer": ("answer['content'] = 'x' * 2**30", KEPT, None, None),
    "an answer that contains itself": ("answer['content'] = answer; answer['self'] = [answer]", KEPT, None, False),
    "an unpicklable answer": ("answer['content'] = lambda: 1; answer['ready'] = object()", KEPT, None, False),
    "exit hooks": ("import atexit; atexit.register(lambda: 1 / 0)\nimport sys; sys.exit()", KEPT, "SystemExit", False),
    "garbage collector tricks": (
        "import gc\ngc.callbacks.append(lambda *a: 1 / 0)\nclass D:\n    def __del__(self): raise KeyboardInterrupt\n"
        "D(); gc.collect()",
        KEPT,
        None,
        False,
    ),
    "interrupts itself": (
        "import _thread; _thread.interrupt_main()\nwhile True: pass",
        KEPT,
        "KeyboardInterrupt",
        False,
    ),
    "late interrupt": (
        "import _thread, threading; threading.Timer(0.05, _thread.interrupt_main).start()",
        KEPT,
        None,
        False,
    ),
}
BY_IDENTITY = {
    *("busy loop", "sleep", "deadlocked lock", "C loop that ignores signals", "eats every exception"),
    *("os._exit", "SIGKILL of itself", "SIGSTOP of itself", "segfault", "a forged report"),
    *("memory by list", "memory by mmap", "memory by threads", "many threads", "descriptors used up"),
    *("more output than the file may hold", "limits lifted", "forks in a loop, the cap on processes set first"),
}
"""What the host ends by a signal, and what a limit of the kernel stops: there it matters who the two are. The others
are matters of Python inside the process."""
NOT_IN_BARE = {"limits lifted", "forks in a loop, the cap on processes set first"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=GUARD_FIRST)
async def arena(request: pytest.FixtureRequest):
    """(level, pool, a REPL that nobody attacks)"""
    level = request.param
    pool = await open_pool(level, interrupt_grace=0.15, memory_mb=512, file_mb=64)
    sibling = await pool.open()
    await sibling.run("mine = 1")
    yield level, pool, sibling
    await pool.close()


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=pytest.mark.identity) if name in BY_IDENTITY else name for name in FAULTS]
)
async def test_fault(arena: tuple[str, ReplPool, Repl], fault: str):
    level, pool, sibling = arena
    code, outcome, told, timed_out = FAULTS[fault]
    if level == "bare" and fault in NOT_IN_BARE:
        pytest.skip("nothing forbids it in bare")
    async with pool.open(context="the context") as repl:
        await repl.run("kept = 1")
        # Faults that end by themselves get the time they need; the others are stopped soon.
        step = await asyncio.wait_for(repl.run(code, timeout=0.4 if timed_out else 20), 60)
        # Asked by the answer, since threads of the fault may be printing still.
        question = "answer = {'content': f\"{'kept' in globals()} {context}\"}"
        after = await asyncio.wait_for(repl.run(question, timeout=20), 60)
        if not step.state_lost and not after.state_lost and "context" not in code:
            assert after.answer["content"] == "True the context", (step, after)
        if step.state_lost or after.state_lost:
            assert outcome in (LOST, EITHER), (step, after)
            last = await repl.run("answer = {'content': context}")
            assert last.answer["content"] == "the context", last
        else:
            assert outcome in (KEPT, EITHER), (step, after)
        if told is not None:
            assert told in (step.error or "") + (after.error or ""), (step, after)
        if timed_out is not None:
            assert step.timed_out is timed_out, step
        assert len(step.output) <= 8192
        final = await repl.run("answer = {'content': 1 + 1}")
        if final.state_lost and outcome is EITHER:  # what the fault left behind struck only now
            final = await repl.run("answer = {'content': 1 + 1}")
        assert final.answer["content"] == "2", final
    assert (await sibling.run("mine")).output == "1\n"


@pytest.mark.identity
async def test_death_is_noticed_in_a_moment(arena: tuple[str, ReplPool, Repl]):
    _, pool, _ = arena
    async with pool.open() as repl:
        begin = time.monotonic()
        step = await repl.run("import os; os._exit(1)", timeout=60)
        assert step.state_lost
        assert time.monotonic() - begin < 5


@pytest.mark.identity
async def test_nothing_is_left_after_faults(arena: tuple[str, ReplPool, Repl]):
    """Descriptors of the host and children of the zygote, after opening and losing some."""
    _, pool, sibling = arena
    before = len(os.listdir("/proc/self/fd"))
    for code in ("import os; os._exit(1)", "1", "import os; os.kill(os.getpid(), 9)", "import os; os.close(0)"):
        async with pool.open(context="c") as repl:
            pid = repl.pid
            await repl.run(code)
        for _ in range(100):
            if gone(pid):
                break
            await asyncio.sleep(0.02)
        assert gone(pid)
    assert len(os.listdir("/proc/self/fd")) == before
    assert (await sibling.run("mine")).output == "1\n"


def gone(pid: int) -> bool:
    """Ended and reaped: a zombie would still be there."""
    return not os.path.exists(f"/proc/{pid}")
