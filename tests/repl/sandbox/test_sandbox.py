"""Attacks on everything that a REPL must not reach, at every isolation level; each denial with its positive control.

An attack is a function body that returns when it got through. The control runs the very same cell in a REPL at level
`bare`, where it has to leak; at every other level it has to fail, and with the expected error.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplConfig, ReplPool, SandboxError
from rlm_env.repl.config import LEVELS
from rlm_env.repl.host import isolation
from tests.repl.levels import open_pool

pytestmark = pytest.mark.identity

FILE = {"guard": {"EACCES"}, "sealed": {"EPERM"}, "jail": {"ENOENT"}}
CALL = {"guard": {"EPERM"}, "sealed": {"EPERM"}, "jail": {"EPERM"}}
PROCESS = {"guard": {"EACCES"}, "sealed": {"EPERM"}, "jail": {"ENOENT", "EACCES"}}
"""Files of another process: in the jail that process does not exist, or its number is somebody else's."""
OTHER = {**CALL, "jail": {"EPERM", "ESRCH"}}
FORK = CALL  # denied with a message of our own, which carries the same errno
WRITE = {"guard": {"EACCES"}, "sealed": {"EPERM"}, "jail": {"EACCES"}}

ATTACKS = {
    "read a file of the system": ("open('/etc/passwd').read()", FILE),
    "read a file of the host": ("open({secret!r}).read()", FILE),
    "read the project's own tree": ("open({own!r}).read()", FILE),
    "list the root": ("import os; os.listdir('/')", {**FILE, "jail": {"EACCES"}}),
    "list all processes": ("import os; os.listdir('/proc')", {**FILE, "jail": {"EACCES"}}),
    "read the host's environment": ("open('/proc/{host}/environ', 'rb').read()", PROCESS),
    "open the host's memory": ("open('/proc/{host}/mem', 'rb').close()", PROCESS),
    "open a sibling's memory": ("open('/proc/{sibling}/mem', 'rb').close()", PROCESS),
    "list the host's descriptors": ("import os; os.listdir('/proc/{host}/fd')", PROCESS),
    "read its own maps": ("open('/proc/self/maps').read()", {**FILE, "jail": {"EACCES"}}),
    "create a file": ("open({new!r}, 'w').write('x')", {**FILE, "guard": {"EACCES"}}),
    "create a temporary file": (
        "import tempfile; tempfile.TemporaryFile(dir='/tmp')",
        {**FILE, "jail": {"ENOENT", "EACCES"}},
    ),
    "append to a file of the host": ("open({secret!r}, 'a').write('x')", FILE),
    "delete a file of the host": ("import os; os.link({secret!r}, {new!r}); os.unlink({new!r})", CALL),
    "make a directory": ("import os; os.mkdir({new!r}); os.rmdir({new!r})", CALL),
    "change a mode": ("import os; os.chmod({secret!r}, 0o600)", CALL),
    "change times": ("import os; os.utime({secret!r})", CALL),
    "change an owner": ("import os; os.chown({secret!r}, -1, -1)", CALL),
    "truncate a file": ("import os; os.truncate({secret!r}, 6)", CALL),
    "signal the host": ("import os; os.kill({host}, 0)", CALL),
    "signal a sibling": ("import os; os.kill({sibling}, 0)", CALL),
    "signal its process group": ("import os; os.killpg(0, 0)", CALL),
    "read the host's limits": ("import resource; resource.prlimit({host}, resource.RLIMIT_NOFILE)", CALL),
    "set a limit": (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS))",
        {level: {"ValueError"} for level in CALL},  # how Python tells EPERM here
    ),
    "pin the host": ("import os; os.sched_setaffinity({host}, os.sched_getaffinity({host}))", OTHER),
    "slow the host down": ("import os; os.setpriority(os.PRIO_PROCESS, {host}, os.getpriority(0, {host}))", OTHER),
    "read the host's CPU time": ("import time; time.clock_gettime((~{host} << 3) | 2)", {t: {"EINVAL"} for t in CALL}),
    "trace the host": (
        # A process that is not traced answers ESRCH, if it may be asked at all.
        "import ctypes, errno; c = ctypes.CDLL(None, use_errno=True)\n"
        "c.ptrace(0x4201, {host}, None, None)\n"
        "if ctypes.get_errno() != errno.ESRCH: raise OSError(ctypes.get_errno(), 'ptrace')",
        CALL,
    ),
    "copy the host's memory": (
        # No vectors: the kernel still looks at the process first.
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.process_vm_readv({host}, None, 0, None, 0, 0): raise OSError(ctypes.get_errno(), 'readv')",
        CALL,
    ),
    "outlive the host": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.prctl(1, 15, 0, 0, 0): raise OSError(ctypes.get_errno(), 'prctl')",
        CALL,
    ),
    "connect to a local port": ("import socket; socket.create_connection(('127.0.0.1', {port}), 2)", CALL),
    "send a datagram": ("import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))", CALL),
    "resolve a name": ("import socket; socket.getaddrinfo('localhost', 80)", {t: {"gaierror"} for t in CALL}),
    "connect to a unix socket": ("import socket; socket.socket(1, 1).connect({unix!r})", CALL),
    "connect to an abstract socket": ("import socket; socket.socket(1, 1).connect(chr(0) + {abstract!r})", CALL),
    "post a datagram by path": (
        "import socket; a, b = socket.socketpair(1, 2); a.sendto(b'x', {datagram!r})",
        CALL,
    ),
    "own a socket's signals for the host": (
        "import fcntl, socket; a, b = socket.socketpair(); fcntl.fcntl(a, fcntl.F_SETOWN, {host})",
        CALL,
    ),
    "fork": ("import os\nif not os.fork(): os._exit(0)\nos.wait()", FORK),
    "fork in C": (
        "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); pid = c.fork()\n"
        "if pid == 0: os._exit(0)\n"
        "if pid < 0: raise OSError(ctypes.get_errno(), 'fork')",
        CALL,
    ),
    "run a program": ("import subprocess; subprocess.run(['true'], check=True, env={{'PATH': '/usr/bin:/bin'}})", FORK),
    "run a shell": ("import os\nif os.system('true'): raise ValueError", FORK),
    "spawn": ("import os; os.posix_spawn('/bin/true', ['true'], {{}})", FORK),
    "use multiprocessing": (
        "import multiprocessing as m; p = m.get_context('fork').Process(target=int); p.start(); p.join()",
        FORK,
    ),
    "make a memory file": ("import os; os.close(os.memfd_create('x'))", CALL),
    "make shared memory": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.shmget(0, 4096, 0o1600) < 0: raise OSError(ctypes.get_errno(), 'shmget')",
        CALL,
    ),
    # Pages of these would stay when they are unmapped, and nothing that bounds a process would count them.
    "keep memory that no limit counts": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); c.mmap.restype = ctypes.c_void_p\n"
        "if c.mmap(None, ctypes.c_size_t(4096), 3, 0x21, -1, ctypes.c_long(0)) == 2**64 - 1:\n"
        "    raise OSError(ctypes.get_errno(), 'mmap')",
        CALL,
    ),
    "keep zeros that no limit counts": (
        "import mmap, os; mmap.mmap(os.open('/dev/zero', os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_READ)",
        {**FILE, "jail": {"EACCES"}},
    ),
    "make a user namespace": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'unshare')",
        CALL,
    ),
    "watch files": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.inotify_init() < 0: raise OSError(ctypes.get_errno(), 'inotify')",
        CALL,
    ),
    "stat a file of the host": ("import os; os.stat({secret!r})", {"sealed": {"EPERM"}, "jail": {"ENOENT"}}),
}
ALLOWED = {("stat a file of the host", "guard")}
"""Expected differences between levels: docs/sandbox.md names them."""


def cell(body: str, **names: object) -> str:
    attack = textwrap.indent(body.format(**names), "    ")
    return (
        f"import errno as _errno\ndef _attack():\n{attack}\ntry:\n    _attack()\n    _outcome = 'leaked'\n"
        "except Exception as _error:\n"
        "    _number = getattr(_error, 'errno', None)\n"
        "    _outcome = _errno.errorcode.get(_number, type(_error).__name__)\n_outcome"
    )


class Targets:
    """Things on the host to attack."""

    def __init__(self, directory: Path) -> None:
        self.secret = directory / "secret"
        self.secret.write_text("secret")
        self.new = directory / "new"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(directory / "unix"))
        self.unix.listen()
        self.datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagram.bind(str(directory / "datagram"))
        self.datagram.setblocking(False)
        self.abstract = f"rlm-env-test-{os.getpid()}"
        self.abstract_socket = socket.socket(socket.AF_UNIX)
        self.abstract_socket.bind("\0" + self.abstract)
        self.abstract_socket.listen()
        self.names = {
            "host": os.getpid(),
            "secret": str(self.secret),
            "own": __file__,
            "new": str(self.new),
            "port": self.tcp.getsockname()[1],
            "unix": str(directory / "unix"),
            "datagram": str(directory / "datagram"),
            "abstract": self.abstract,
        }

    def close(self) -> None:
        for sock in (self.tcp, self.unix, self.datagram, self.abstract_socket):
            sock.close()


@pytest.fixture(scope="module")
def targets():
    directory = Path(tempfile.mkdtemp(prefix="rlm-env-sandbox-"))
    directory.chmod(0o755)  # the sandbox is to deny, not the mode
    found = Targets(directory)
    yield found
    found.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=("guard", "sealed", "jail"))
async def confined(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, ReplPool, Repl, Repl]]:
    """(level, its pool, a REPL, a sibling)"""
    level = request.param
    pool = await open_pool(level)
    yield level, pool, await pool.open(), await pool.open()
    await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare() -> AsyncIterator[tuple[Repl, Repl]]:
    async with ReplPool(ReplConfig(level="bare", allow_unsafe=True, preload=())) as pool:
        yield await pool.open(), await pool.open()


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_denied(confined, targets: Targets, attack: str):
    level, _, repl, sibling = confined
    body, expected = ATTACKS[attack]
    step = await repl.run(cell(body, sibling=sibling.pid, **targets.names))
    outcome = step.output.strip().strip("'")
    if (attack, level) in ALLOWED:
        assert outcome == "leaked"
    else:
        assert outcome in expected[level], step.error
    assert targets.secret.read_text() == "secret"
    with pytest.raises(BlockingIOError):
        targets.datagram.recv(1)
    assert (await sibling.run("1")).output == "1\n"


async def denied_to_everybody(attack: str, sibling: int, targets: Targets) -> bool:
    """True if a plain process of this machine does not get through either."""
    code = cell(ATTACKS[attack][0], sibling=sibling, **targets.names) + "\nprint(_outcome)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode().strip() != "leaked"


async def test_positive_control(bare, targets: Targets, attack: str):
    repl, sibling = bare
    body, _ = ATTACKS[attack]
    step = await repl.run(cell(body, sibling=sibling.pid, **targets.names))
    try:
        if step.output.strip() != "'leaked'" and await denied_to_everybody(attack, sibling.pid, targets):
            pytest.skip("this machine (a container, a chroot) denies it to everybody: there is nothing to prove")
        assert step.output.strip() == "'leaked'", step.error
    finally:
        targets.secret.write_text("secret")
        targets.new.unlink(missing_ok=True)
        while True:
            try:
                targets.datagram.recv(1)
            except BlockingIOError:
                break


async def test_nothing_of_the_host_is_inherited(confined, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    _, pool, repl, _ = confined
    assert (await repl.run("import os; dict(os.environ)")).output == "{}\n"
    code = "import gc\n[o for o in gc.get_objects() if isinstance(o, dict) and any('OPENAI' in str(k) for k in o)]"
    assert (await repl.run(code, timeout=60)).output == "[]\n"
    code = """
import os
def is_open(fd):
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError as error:
        return error.errno != 9
    return True
[fd for fd in range(64) if is_open(fd)]
"""
    descriptors = await (await pool.open()).run(code)
    assert set(json.loads(descriptors.output)) <= {0, 1, 2, 3, 4, 5}


async def test_what_must_work_in_a_sandbox(confined):
    level, _, repl, _ = confined
    code = """
import asyncio, concurrent.futures, json, re, collections, threading, random, datetime, decimal, statistics, time
with concurrent.futures.ThreadPoolExecutor(8) as workers:
    total = sum(workers.map(lambda n: n * n, range(100)))
async def main():
    return await asyncio.gather(*(asyncio.sleep(0.001, i) for i in range(3)))
print(total, asyncio.run(main()), os.urandom(1) != None, datetime.datetime.now().year > 2000)
"""
    step = await repl.run("import os\n" + code)
    assert step.output == "328350 [0, 1, 2] True True\n", step.error
    if level != "sealed":  # which has no files to import from, only what the zygote has imported
        step = await repl.run(
            "import sqlite3, xml.dom.minidom, ctypes; sqlite3.connect(':memory:').execute('select 1').fetchone()"
        )
        assert step.output == "(1,)\n", step.error


async def test_the_report_names_the_active_layers(confined):
    level, pool, _, _ = confined
    report = pool.report
    assert report.level == level
    assert {layer.name for layer in report.layers if layer.active} >= {"own process", "limits", "seccomp"}
    assert "leaked" not in report.attacks.values()
    assert len(report.attacks) >= 10
    assert set(report.not_chosen) == set(LEVELS) - {level}
    assert json.loads(json.dumps(report.to_dict()))["level"] == level


async def test_a_level_whose_self_test_leaks_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(isolation, "leaks", lambda level, attacks: ["something"] if level != "sealed" else [])
    async with ReplPool(ReplConfig(preload=())) as pool:
        assert pool.report.level == "sealed"
        assert "self-test got through: something" in pool.report.not_chosen["guard"]
    with pytest.raises(SandboxError, match="self-test got through"):
        await ReplPool(ReplConfig(preload=(), require="guard")).__aenter__()


async def test_refusals():
    with pytest.raises(SandboxError, match="allow_unsafe"):
        await ReplPool(ReplConfig(level="bare")).__aenter__()
    with pytest.raises(SandboxError, match="below require"):
        await ReplPool(ReplConfig(level="guard", require="jail")).__aenter__()
    with pytest.raises(ValueError, match="level='magic'"):
        ReplConfig(level="magic")


async def test_without_bubblewrap_there_is_no_jail(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(SandboxError, match="not installed"):
        await ReplPool(ReplConfig(level="jail", require="jail", preload=())).__aenter__()
    async with ReplPool(ReplConfig(level="best", preload=())) as pool:
        assert pool.report.level == "guard"


async def test_dies_with_the_host_even_when_that_is_killed():
    code = textwrap.dedent(
        """
        import asyncio, sys
        from rlm_env.repl import ReplConfig, ReplPool
        async def main():
            async with ReplPool(ReplConfig(preload=(), allow_fork=True)) as pool:
                repls = [await pool.open() for _ in range(4)]
                repls += [await repls[0].fork()]
                shared = await pool.share('text')
                repls.append(await pool.open(context=shared))
                tasks = [asyncio.create_task(r.run('while True: pass', timeout=None)) for r in repls]
                await asyncio.sleep(0.3)
                pids = [r.pid for r in repls] + [pool.zygote_pid]
                print(*pids, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    pids = [int(pid) for pid in (await asyncio.wait_for(process.stdout.readline(), 30)).split()]
    assert len(pids) == 7
    assert all(alive(pid) for pid in pids)
    process.kill()
    await process.wait()
    for _ in range(50):
        await asyncio.sleep(0.02)
        if not any(alive(pid) for pid in pids):
            break
    assert [pid for pid in pids if alive(pid)] == []


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
