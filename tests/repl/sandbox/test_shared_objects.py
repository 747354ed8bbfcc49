"""Nothing that two REPLs share can be written: no lock, queue, flag or file. So rollouts pass each other no word.

A way is two cells: one leaves a mark, the other, in another REPL, looks for it and returns True where it finds it. At
level `bare` it has to be found (the positive control); everywhere else marking or looking fails.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplPool
from tests.repl.levels import open_pool

pytestmark = [pytest.mark.identity, pytest.mark.asyncio(loop_scope="module")]

FIND = """
import ctypes, fcntl, os, struct, sys, mmap, time
c = ctypes.CDLL(None, use_errno=True)
c.syscall.restype = ctypes.c_long
c.mmap.restype = ctypes.c_void_p
module = os.__file__
def call(number, *arguments):
    result = c.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def locked_at(file, command):
    answer = fcntl.fcntl(file, command, struct.pack('hhqqi', 1, 0, 0, 1 << 48, 0))
    return struct.unpack('hhqqi', answer[:28])[2]
def mapped():
    file = os.open(module, os.O_RDONLY)
    address = c.mmap(None, 4096, 1, 1, file, 0)
    os.close(file)
    if address in (None, 2**64 - 1): raise OSError('mmap')
    return address
def queue_signal():
    import signal, threading
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN + 1])
    call(234, os.getpid(), threading.get_native_id(), int(signal.SIGRTMIN + 1))
"""
WAYS = {
    "record locks on /dev/null": (
        "f = os.open('/dev/null', os.O_RDWR); fcntl.fcntl(f, fcntl.F_SETLK, struct.pack('hhqqi', 1, 0, 4711, 1, 0))",
        "f = os.open('/dev/null', os.O_RDWR)\nlocked_at(f, fcntl.F_GETLK) == 4711",
    ),
    "read locks on a module": (
        "f = os.open(module, os.O_RDONLY); fcntl.fcntl(f, fcntl.F_SETLK, struct.pack('hhqqi', 0, 0, 4711, 1, 0))",
        "f = os.open(module, os.O_RDONLY)\nlocked_at(f, fcntl.F_GETLK) == 4711",
    ),
    "locks of an opened file": (
        "f = os.open(module, os.O_RDONLY); fcntl.fcntl(f, 37, struct.pack('hhqqi', 0, 0, 4711, 1, 0))",
        "f = os.open(module, os.O_RDONLY)\nlocked_at(f, 36) == 4711",
    ),
    "flock": (
        "f = os.open(module, os.O_RDONLY); fcntl.flock(f, fcntl.LOCK_EX)",
        "f = os.open(module, os.O_RDONLY)\n"
        "try: fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB); found = False\n"
        "except BlockingIOError: found = True\n"
        "found",
    ),
    "flags of a descriptor that both have inherited": (
        "fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_APPEND); None",
        "bool(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND)",
    ),
    "a futex in a file that both have mapped": (
        "a = mapped()\nimport threading\n"
        "value = ctypes.cast(a + 64, ctypes.POINTER(ctypes.c_int))[0]\n"
        "def wait(): c.syscall(202, ctypes.c_void_p(a + 64), 0, value, 0)\n"
        "threading.Thread(target=wait, daemon=True).start(); time.sleep(0.1)",
        "a = mapped()\ncall(202, ctypes.c_void_p(a + 64), 1, 100) > 0",
    ),
    "pages in memory": (
        "f = os.open(module, os.O_RDONLY); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)",
        "v = ctypes.create_string_buffer(1); call(27, ctypes.c_void_p(mapped()), 4096, v); True",
    ),
    "a lease": (
        "f = os.open(module, os.O_RDONLY); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
        "f = os.open(module, os.O_RDONLY); fcntl.fcntl(f, fcntl.F_GETLEASE); True",
    ),
    "shared memory of System V": (
        "call(29, 4711, 4096, 0o1666)",
        "call(29, 4711, 4096, 0o666) >= 0",
    ),
    "a message queue": (
        "call(68, 4711, 0o1666)",
        "call(68, 4711, 0o666) >= 0",
    ),
    "a semaphore of POSIX": (
        "import _multiprocessing; s = _multiprocessing.SemLock(1, 1, 1, '/rlm-env-test', False)",
        "import _multiprocessing; bool(_multiprocessing.SemLock._rebuild(-1, 1, 1, '/rlm-env-test'))",
    ),
    "the queue of a user's real-time signals": (
        "for _ in range(10**6):\n    try: queue_signal()\n    except BlockingIOError: break",
        "try: queue_signal(); found = False\nexcept BlockingIOError: found = True\nfound",
    ),
    "a key ring": (
        "call(248, b'user', b'rlm-env-test', b'x', 1, -4)",
        "call(250, 10, -4, b'user', b'rlm-env-test', 0) > 0",
    ),
    "the time of a file": (
        "os.utime('/dev/null', (4711, 4711))",
        "os.stat('/dev/null').st_mtime == 4711",
    ),
    "a file": (
        "open('/tmp/rlm-env-shared-test', 'w').close()",
        "open('/tmp/rlm-env-shared-test').close(); os.unlink('/tmp/rlm-env-shared-test'); True",
    ),
}
CLEAN_UP = """
import glob, os, time, ctypes
for path in glob.glob('/tmp/rlm-env-shared-test') + glob.glob('/dev/shm/sem.rlm-env-test'): os.unlink(path)
os.utime('/dev/null', (time.time(), time.time()))
c = ctypes.CDLL(None)
for get, control in ((29, 31), (68, 71)):
    found = c.syscall(get, 4711, 4096 if get == 29 else 0o666, 0o666)
    if found >= 0: c.syscall(control, found, 0, None)
"""
NOT_HERE = {"a key ring", "a lease", "the time of a file", "the queue of a user's real-time signals"}
"""Ways that depend on the kernel's build and on who runs it: where the control does not get through, nothing is to be
proved."""
CLOSED_EVERYWHERE = {"flags of a descriptor that both have inherited"}
"""Ways that need no sandbox to be closed; the control is that a REPL finds its own mark."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=("guard", "sealed", "jail"))
async def pairs(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Repl, Repl, Repl]]:
    """A REPL, a sibling, and one of another pool."""
    first, second = await open_pool(request.param), await open_pool(request.param)
    yield await first.open(), await first.open(), await second.open()
    await first.close()
    await second.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare() -> AsyncIterator[ReplPool]:
    pool = await open_pool("bare")
    yield pool
    async with pool.open() as repl:
        await repl.run(CLEAN_UP)
    await pool.close()


@pytest.mark.parametrize("way", WAYS)
async def test_no_mark_of_one_repl_is_found_by_another(pairs, way: str):
    one, sibling, stranger = pairs
    mark, look = WAYS[way]
    await one.run(FIND)
    marked = await one.run(mark, timeout=10)
    for other in (sibling, stranger):
        await other.run(FIND)
        step = await other.run(look, timeout=10)
        assert step.output != "True\n", (marked, step)
        assert marked.error or step.error or step.output == "False\n"
    assert not marked.state_lost


@pytest.mark.parametrize("way", WAYS)
async def test_positive_control_in_bare_it_is_found(bare: ReplPool, way: str):
    mark, look = WAYS[way]
    async with bare.open() as one, bare.open() as other:
        await one.run(FIND)
        await other.run(FIND)
        marked = await one.run(mark, timeout=10)
        step = await (one if way in CLOSED_EVERYWHERE else other).run(look, timeout=10)
        if way in NOT_HERE and step.output != "True\n":
            pytest.skip("this machine denies it to everybody")
        assert step.output == "True\n", (marked, step)


async def test_no_memory_is_shared_that_can_be_written(pairs):
    """Mappings of a REPL that are shared and writable would be seen by its siblings."""
    one, *_ = pairs
    with open(f"/proc/{one.pid}/maps") as maps:  # noqa: ASYNC230
        lines = maps.read().splitlines()
    assert len(lines) > 20
    assert [line for line in lines if line.split()[1][1] == "w" and line.split()[1][3] == "s"] == []


async def test_threads_end_and_are_joined_without_shared_futexes(pairs):
    """What the C library waits for with a futex that is not private: the end of a thread."""
    one, *_ = pairs
    code = """
import ctypes, threading
c = ctypes.CDLL(None)
started = []
@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def run(_):
    started.append(1)
    return None
ids = [ctypes.c_ulong() for _ in range(20)]
for i in ids: assert c.pthread_create(ctypes.byref(i), None, run, None) == 0
joined = [c.pthread_join(i, None) for i in ids]
print(joined == [0] * 20, len(started))
"""
    step = await asyncio.wait_for(one.run(code, timeout=10), 30)
    assert step.output == "True 20\n", step.error
