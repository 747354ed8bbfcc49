"""The supervisor of an engine: nothing outlives us, however we end. It runs plain processes here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import rlm_env.llm
from rlm_env.llm.vllm.leftovers import end_leftover
from tests.llm.vllm.processes import exists, wait_for

SUPERVISE = Path(rlm_env.llm.__file__).parent / "vllm" / "supervise.py"


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as stubborn as an engine in the middle of a step
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def supervised(folder: Path, grace: float, code: str, niceness: int = 0) -> list[str]:
    """The command line that runs `code` under the supervisor; the parent's pid has to be filled in."""
    (folder / "scratch").mkdir()
    (folder / "scratch" / "socket").touch()
    options = [str(grace), str(niceness), str(folder / "log"), str(folder / "scratch")]
    return [sys.executable, "-I", "-S", str(SUPERVISE), "PARENT", *options, sys.executable, "-c", code]


def pids_in(log: Path) -> list[int]:
    assert wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    return [int(word) for word in log.read_text().split()]


@pytest.mark.parametrize("fork_holds_pipe", [False, True])
def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path, fork_holds_pipe: bool) -> None:
    """kill -9 of the parent, also when a forked child of it still holds the supervisor's pipe open."""
    program = textwrap.dedent(f"""
        import os, subprocess, time
        command = {supervised(tmp_path, 0.3, FAMILY)!r}
        command[4] = str(os.getpid())
        subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        if {fork_holds_pipe} and os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        pids = pids_in(tmp_path / "log")
        assert len(pids) == 2
        assert all(map(exists, pids))
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not any(map(exists, pids)))
    assert wait_for(lambda: not (tmp_path / "scratch").exists())


def test_command_stands_back_as_far_as_it_is_told(tmp_path: Path) -> None:
    told = 7
    group = Path("/proc/self/autogroup")
    code = f"import os; print(os.nice(0)); print(open('{group}').read().split()[-1] if {group.exists()} else '')"
    command = supervised(tmp_path, 1.0, code, told)
    command[4] = str(os.getpid())
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    supervisor.wait()
    supervisor.stdin.close()
    of_process, *of_session = (tmp_path / "log").read_text().split()
    assert int(of_process) == min(19, os.nice(0) + told)
    assert of_session == [str(told)] * group.exists()


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """The command dies with it. Its child, which nothing tells, is ended by whoever looks next, and not before."""
    command = supervised(tmp_path, 1.0, FAMILY)
    command[4] = str(os.getpid())
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    pid, child = pids_in(tmp_path / "log")
    end_leftover(tmp_path / "scratch")
    assert all(map(exists, (supervisor.pid, pid, child)))
    supervisor.kill()
    supervisor.wait()
    supervisor.stdin.close()
    assert wait_for(lambda: not exists(pid))
    assert exists(child)
    (tmp_path / "log").rename(tmp_path / "moved")
    end_leftover(tmp_path / "scratch")
    assert not exists(child)
    assert not (tmp_path / "scratch").exists()


def test_processes_of_others_are_left_alone(tmp_path: Path) -> None:
    """A session whose number the record has by chance, since numbers are used again; and a folder without a record."""
    record = tmp_path / "supervisor.json"
    end_leftover(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    (tmp_path / "log").touch()
    log = (tmp_path / "log").stat()
    record.write_text(json.dumps({"session": other.pid, "device": log.st_dev, "inode": log.st_ino}))
    try:
        end_leftover(tmp_path)
        assert exists(other.pid)
        assert not record.exists()
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_exit_status_is_the_command_s_own(tmp_path: Path, code: str, status: int) -> None:
    command = supervised(tmp_path, 1.0, code)
    command[4] = str(os.getpid())
    with subprocess.Popen(command, stdin=subprocess.PIPE) as supervisor:
        assert supervisor.wait(30) == status
    assert not (tmp_path / "scratch").exists()
