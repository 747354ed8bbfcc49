"""The private temporary directory: what works in it, what stays denied, what it may cost, and that nothing is left."""

import asyncio
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplConfig, ReplPool
from rlm_env.repl.host.scratch import ScratchBase, ScratchDirectory
from rlm_env.repl.host.scratch_use import ScratchWatch
from rlm_env.repl.sandbox.scratch import MAX_SCRATCH_NAMES
from tests.repl.levels import open_pool

pytestmark = [pytest.mark.identity, pytest.mark.asyncio(loop_scope="module")]
LEVELS = ("guard", *(pytest.param(level, marks=pytest.mark.slow) for level in ("jail", "bare")))
START = "import os, tempfile, pathlib\nhere = pathlib.Path(tempfile.gettempdir())"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=LEVELS)
async def room(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, ReplPool]]:
    """(level, a pool whose REPLs have temporary directories of 16 MiB)"""
    pool = await open_pool(request.param, tmp_mb=16, interrupt_grace=0.3)
    yield request.param, pool
    await pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def repl(room) -> AsyncIterator[Repl]:
    async with room[1].open() as opened:
        await opened.run(START)
        yield opened


def left_behind() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("rlm-env-tmp-*"))


USES = {
    "files": (
        "with tempfile.TemporaryFile() as f:\n    f.write(b'ab'); f.seek(1); print(f.read())\n"
        "with tempfile.NamedTemporaryFile('w', suffix='.txt') as f: print(pathlib.Path(f.name).parent == here)",
        "b'b'\nTrue\n",
    ),
    "folders": (
        "with tempfile.TemporaryDirectory() as d:\n    os.makedirs(d + '/a/b')\n"
        "    print(sorted(x for _, x, _ in os.walk(d)))\nos.listdir(here)",
        "[[], ['a'], ['b']]\n[]\n",
    ),
    "moving": (
        "import shutil\n(here / 'a').write_text('text')\n"
        "os.replace(here / 'a', here / 'b'); (here / 'b').rename(here / 'c')\n"
        "shutil.copy(here / 'c', here / 'd'); shutil.move(here / 'd', here / 'e')\nos.rename(here / 'c', here / 'c')\n"
        "print(sorted(os.listdir(here)), (here / 'e').read_text()); (here / 'c').unlink(); (here / 'e').unlink()",
        "['c', 'e'] text\n",
    ),
    "variables": (
        "print({os.environ['TMPDIR'], os.environ['HOME'], str(pathlib.Path.home())} == {str(here)})",
        "True\n",
    ),
    "archives": (
        "import zipfile, tarfile\nwith zipfile.ZipFile(here / 'z', 'w') as z: z.writestr('in/x', 'data')\n"
        "with zipfile.ZipFile(here / 'z') as z: z.extractall(here)\nprint((here / 'in' / 'x').read_text())",
        "data\n",
    ),
    "mappings": (
        "import mmap\nf = tempfile.TemporaryFile(); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096); m[:2] = b'ok'\n"
        "print(f.read(2)); m.close(); f.close()",
        "b'ok'\n",
    ),
}


@pytest.mark.parametrize("use", USES)
async def test_what_works_in_it(repl: Repl, use: str):
    code, expected = USES[use]
    step = await repl.run(code)
    assert step.output == expected, step.error


DENIED = {
    # what: (cell, errors at guard, errors at jail)
    "another REPL's directory": ("os.listdir({sibling!r})", {"EACCES"}, {"ENOENT"}),
    "another REPL's file": ("open({sibling!r} + '/mine').read()", {"EACCES"}, {"ENOENT"}),
    "writing into another REPL's": ("open({sibling!r} + '/new', 'w')", {"EACCES"}, {"ENOENT"}),
    "removing another REPL's file": ("os.unlink({sibling!r} + '/mine')", {"EACCES"}, {"ENOENT"}),
    "listing the folder of all": ("os.listdir(here.parent.parent)", {"EACCES"}, set()),
    "a file beside it": ("open(here.parent.parent / 'new', 'w')", {"EACCES"}, {"EROFS"}),
    "a folder beside it": ("os.mkdir(here.parent.parent / 'new-folder')", {"EACCES"}, {"EROFS"}),
    "a file of the host": ("open('/etc/passwd').read()", {"EACCES"}, {"ENOENT"}),
    # In a jail it is there where the interpreter stands in it, and read-only.
    "a file in the host's temporary directory": ("open({new!r}, 'w')", {"EACCES"}, {"ENOENT", "EACCES", "EROFS"}),
    "a link": ("os.symlink('/etc/passwd', here / 'link')", {"EPERM"}, {"EPERM"}),
    "a second name": ("(here / 'x').write_text(''); os.link(here / 'x', here / 'y')", {"EPERM"}, {"EPERM"}),
    "a named pipe": ("os.mkfifo(here / 'pipe')", {"EPERM"}, {"EPERM"}),
    "a socket": ("import socket; socket.socket(1).bind(str(here / 'socket'))", {"EPERM"}, {"EPERM"}),
    "a mode": ("(here / 'm').write_text(''); os.chmod(here / 'm', 0o777)", {"EPERM"}, {"EPERM"}),
    "a lock that others could see": (
        "import fcntl; f = open(here / 'lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
        {"EPERM"},
        {"EPERM"},
    ),
    "running a program from it": (
        "import subprocess, shutil; p = here / 'run'; p.write_text('#!/bin/sh'); os.execv(p, [str(p)])",
        {"EPERM"},
        {"EPERM"},
    ),
}
EVEN_AT_BARE = {"running a program from it"}
"""Files have no execute bit there, and the cell would end with the REPL."""


@pytest.fixture
def new_file() -> Iterator[str]:
    """The name of a file that could be made in the host's temporary directory."""
    path = Path(tempfile.gettempdir(), f"rlm-env-test-{os.getpid()}")
    yield str(path)
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("what", DENIED)
async def test_what_stays_denied(room, repl: Repl, what: str, new_file: str):
    level, pool = room
    code, at_guard, at_jail = DENIED[what]
    async with pool.open() as sibling:
        # The name of the other directory is told here; no REPL could find it.
        where = (await sibling.run(f"{START}\n(here / 'mine').write_text('x')\nprint(here)")).output.split()[-1]
        if level == "jail":
            where = where.replace("/repl/", "/other/")
        body = textwrap.indent(code.format(sibling=where, new=new_file), "    ")
        step = await repl.run(
            f"import errno\ntry:\n{body}\n    print('leaked')\nexcept OSError as e: print(errno.errorcode[e.errno])"
        )
    expected = {"guard": at_guard, "jail": at_jail or {"leaked"}}.get(level, {"leaked"})
    if level == "bare" and what in EVEN_AT_BARE:
        expected = {"EACCES"}
    assert step.output.strip() in expected, step


COSTS = {
    "bytes": "for i in range(20): (here / f'b{i}').write_bytes(bytes(2**20))",
    "names": f"for i in range({MAX_SCRATCH_NAMES + 10}): (here / f'n{{i}}').write_bytes(b'')",
    "folders": f"for i in range({MAX_SCRATCH_NAMES + 10}): os.mkdir(here / f'n{{i}}')",
    "removed open files": (
        "kept = []\nfor i in range(20):\n"
        "    f = tempfile.TemporaryFile(); f.write(bytes(2**20)); f.flush(); kept.append(f)"
    ),
    "filled holes": (
        "f = open(here / 'sparse', 'wb'); f.truncate(60 * 2**20)\n"
        "for i in range(20): f.seek(3 * i * 2**20); f.write(bytes(2**20))\nf.flush()"
    ),
    "closed folders": (
        "os.mkdir(here / 'd', 0o300)\nfor i in range(20): (here / 'd' / f'b{i}').write_bytes(bytes(2**20))"
    ),
}
REASONS = {
    "names": f"had more than {MAX_SCRATCH_NAMES:,} files and folders in its temporary directory, and was ended",
    "folders": f"had more than {MAX_SCRATCH_NAMES:,} files and folders in its temporary directory, and was ended",
}


@pytest.mark.parametrize("cost", COSTS)
async def test_what_it_may_cost(room, repl: Repl, cost: str):
    level, pool = room
    async with pool.open() as sibling:
        step = await repl.run(COSTS[cost])
        if level == "jail":  # the kernel refuses, and the state is kept
            assert "No space left on device" in (step.error or ""), step
            assert (await repl.run("print(here)")).error is None
        else:
            reason = REASONS.get(cost, "held more than 16 MiB in its temporary directory, and was ended")
            assert step.error == f"The REPL's process {reason}."
            assert step.state_lost
            assert repl.ends == [reason]
            step = await repl.run(f"{START}\nprint(os.listdir(here))")
            assert step.output == "[]\n"
        assert (await sibling.run("1 + 1")).output == "2\n"


async def test_what_is_mapped_without_a_descriptor_counts(room, repl: Repl):
    level, _ = room
    code = """
import ctypes
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
for i in range(20):
    path = here / f"m{i}"
    path.write_bytes(bytes(2**20))
    fd = os.open(path, os.O_RDWR)
    libc.mmap(None, ctypes.c_size_t(4096), 3, 1, fd, ctypes.c_long(0))
    os.close(fd); path.unlink()
"""
    step = await repl.run(code)
    if level == "jail":
        assert "No space left on device" in (step.error or ""), step
    else:
        assert "held more than 16 MiB in its temporary directory" in (step.error or ""), step


async def test_holes_cost_nothing(repl: Repl):
    step = await repl.run(
        "for i in range(5):\n    with open(here / f's{i}', 'wb') as f: f.truncate(60 * 2**20)\nprint('kept')"
    )
    assert step.output == "kept\n", step.error
    assert (await repl.run("len(os.listdir(here))")).output == "5\n"


async def test_what_is_removed_is_free_again(repl: Repl):
    code = "for i in range(8):\n    (here / 'a').write_bytes(bytes(12 * 2**20)); (here / 'a').unlink()\nprint('done')"
    assert (await repl.run(code)).output == "done\n"


async def test_folders_too_deep_end_it_and_are_removed(room, repl: Repl):
    level, _ = room
    step = await repl.run("os.chdir(here)\nfor i in range(600): os.mkdir('d' * 100); os.chdir('d' * 100)")
    if level != "jail":
        assert "nested folders more than 32 deep" in (step.error or ""), step


async def test_a_thread_that_outlives_its_cell_is_counted_too(room, repl: Repl):
    level, _ = room
    code = """
import threading, time
def fill():
    time.sleep(0.2)
    for i in range(2000): open(str(here) + "/f" + str(i % 400), "wb").write(bytes(2**20)); time.sleep(0.01)
threading.Thread(target=fill, daemon=True).start()
"""
    assert (await repl.run(code)).error is None
    if level == "jail":
        return
    for _ in range(500):
        if repl.ends:
            break
        await asyncio.sleep(0.02)
    assert repl.ends == ["held more than 16 MiB in its temporary directory, and was ended"]


async def test_nothing_is_left_of_it(room):
    level, pool = room
    base = pool._started().limits.scratch.path

    def directories() -> set[str]:
        return set(os.listdir(base)) if base else set()

    before = directories()
    deep = "os.chdir(here)\nfor i in range(20): os.mkdir('d' * 250, 0o700); os.chdir('d' * 250)\nos.mkdir('x', 0)"
    repl = await pool.open()
    await repl.run(f"{START}\n(here / 'a').write_text('x')\n{deep}")
    killed = await pool.open()
    await killed.run(f"{START}\n(here / 'a').write_text('x')")
    if level != "jail":
        assert len(directories() - before) == 2
    os.kill(killed.pid, signal.SIGKILL)
    await killed.run("1")
    step = await killed.run(f"{START}\nos.listdir(here)")
    assert step.output == "[]\n", step
    await repl.close()
    await killed.close()
    assert directories() == before


@pytest.mark.parametrize("level", LEVELS)
async def test_forks_and_checkpoints_begin_with_an_empty_one(level: str):
    before = left_behind()
    async with await open_pool(level, tmp_mb=16, allow_fork=True, checkpoint=True, interrupt_grace=0.2) as pool:
        repl = await pool.open()
        await repl.run(f"{START}\n(here / 'a').write_text('x'); n = 1")
        fork = await repl.fork()
        look = (
            "now = pathlib.Path(tempfile.gettempdir())\n"
            "print(n, os.listdir(now), str(now) == os.environ['TMPDIR'] != str(here))"
        )
        assert (await fork.run(look)).output == "1 [] True\n"
        await fork.run("(now / 'b').write_bytes(bytes(5 * 2**20))")
        assert (await repl.run("os.listdir(here)")).output == "['a']\n"
        await fork.close()
        for _ in range(2):  # what a cell that is undone has written is gone too, and its room is free
            step = await repl.run("n = 2\nfor i in range(9): (here / f'b{i}').write_bytes(bytes(2**20))\nos._exit(3)")
            assert "the cell is undone" in step.error
            step = await repl.run("here = pathlib.Path(tempfile.gettempdir()); print(n, os.listdir(here))")
            assert step.output == "1 []\n", step
        step = await repl.run("for i in range(20): (here / f'b{i}').write_bytes(bytes(2**20))")
        assert "16 MiB" in step.error if level != "jail" else "No space left" in step.error
        await repl.close()
    assert left_behind() <= before


async def test_each_has_its_own_room(room):
    _, pool = room
    async with pool.open() as one, pool.open() as two:
        fill = f"{START}\n(here / 'a').write_bytes(bytes(12 * 2**20)); print(len(os.listdir(here)))"
        assert [(await repl.run(fill)).output for repl in (one, two)] == ["1\n", "1\n"]


async def test_a_group_has_them_too(room):
    _, pool = room
    async with await pool.share("context") as shared, pool.open(context=shared) as repl:
        step = await repl.run(f"{START}\n(here / 'a').write_text(context); (here / 'a').read_text()")
        assert step.output == "'context'\n"


async def test_what_counting_and_removing_take_is_not_the_cells_time(room, monkeypatch: pytest.MonkeyPatch):
    """Threads of the host do both for all REPLs of a pool, so that other REPLs' files would be booked to a cell."""

    def slow(*_arguments: object) -> None:
        time.sleep(0.8)

    _, pool = room
    async with pool.open() as repl:
        assert (await repl.run("1")).output == "1\n"
        monkeypatch.setattr(ScratchWatch, "excess", slow)
        monkeypatch.setattr(ScratchDirectory, "remove", slow)
        for code, lost in (("pass", False), ("import os; os._exit(0)", True)):
            begin = time.monotonic()
            step = await repl.run(code, timeout=0.7)
            if pool.report.level != "jail" or lost:
                assert time.monotonic() - begin > 0.8
            assert step.state_lost is lost
            assert not step.timed_out
            assert step.seconds < 0.7
        monkeypatch.undo()


async def test_what_a_killed_host_left_behind_is_removed_by_the_next():
    code = "import sys, time; from rlm_env.repl.host.scratch import ScratchBase\n"
    code += "print(ScratchBase('guard').path, flush=True); time.sleep(60)"
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert host.stdout is not None
    path = (await host.stdout.readline()).decode().strip()
    os.makedirs(f"{path}/repl/tmp")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    ScratchBase("guard").close()
    assert os.listdir(f"{path}/repl") == ["tmp"]  # its host lives
    host.kill()
    await host.wait()
    ScratchBase("guard").close()
    with pytest.raises(FileNotFoundError):
        os.stat(path)


async def test_levels_without_files_have_none(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="tmp_mb=5: at level sealed there are no files"):
        ReplConfig(level="sealed", tmp_mb=5)
    with pytest.raises(ValueError, match="tmp_mb=-1"):
        ReplConfig(tmp_mb=-1)
    async with ReplPool(ReplConfig(preload=(), tmp_mb=5)) as pool:
        assert "no temporary directory" in pool.report.not_chosen["sealed"]
        assert "5 MiB" in next(layer.detail for layer in pool.report.layers if layer.name == "watchdog")


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_a_call_that_is_cancelled_while_its_repl_ends_harms_nothing(checkpoint: bool):
    async with await open_pool("guard", tmp_mb=1, allow_fork=True, checkpoint=checkpoint) as pool, pool.open() as repl:
        assert (await repl.run("x = 1")).error is None
        process = repl._process
        call = asyncio.create_task(repl.run(f"{START}\n(here / 'much').write_bytes(bytes(2**22))"))
        while process.alive:  # noqa: ASYNC110 (the very next moment)
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        step = await repl.run("40 + 2")
        assert (step.output, step.state_lost) == ("42\n", True)
        assert repl.ends == ["held more than 1 MiB in its temporary directory, and was ended"]
