"""Attacks, faults and forks once more as an ordinary user, where the tests are run by root; and as a root whose REPLs
get user ids of their own.

A root's interpreter often lies under a home that is closed to others, and then its REPLs keep its own user id. So the
run gets a mount namespace in which that home is open and holds nothing but the interpreter.
"""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534
TESTS = Path(__file__).parents[1]


def closed_directory(path: Path) -> Path | None:
    """The first directory on the way to `path` that others may not enter."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            return directory
    return None


def as_nobody(command: list[str]) -> list[str]:
    """`command` as the user nobody, without any capability."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return with_open_home([*drop, "--inh-caps=-all", "--bounding-set=-all", *command])


def with_open_home(command: list[str]) -> list[str]:
    """`command` where every user can read this interpreter."""
    base = Path(sys.base_prefix)
    closed = closed_directory(base / "bin")
    if closed is None:
        return command
    keep, home = shlex.quote(str(base)), shlex.quote(str(closed))
    script = f"""
        set -e
        kept=$(mktemp -d)
        mount --bind {keep} "$kept"
        mount -t tmpfs -o mode=755 tmpfs {home}
        mkdir -p {keep}
        mount --move "$kept" {keep}
        rmdir "$kept"
        exec {shlex.join(command)}
    """
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


@pytest.fixture(scope="module")
def user_can_run() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user; the other tests have run as an ordinary one")
    if closed_directory(TESTS / "x") is not None:
        pytest.skip("the project lies in a directory that other users cannot enter")
    tried = subprocess.run(as_nobody([sys.executable, "-c", "import pytest"]), capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"another user cannot run this interpreter here: {tried.stderr.strip()[-200:]}")


FILES = (
    "sandbox/test_sandbox.py",
    "sandbox/test_faults.py",
    "sandbox/test_hostile_channel.py",
    "sandbox/test_machine_bounds.py",
    "sandbox/test_shared_objects.py",
    "sandbox/test_closed_packages.py",
    "sandbox/test_scratch.py",
    "host/test_fork.py",
    "host/test_lateness.py",
    "host/test_waits_and_resources.py",
)


@pytest.mark.slow
@pytest.mark.usefixtures("user_can_run")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("who", ["nobody", "root with private user ids"])
def test_as_another(who: str, name: str):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / name)]
    done = subprocess.run(
        as_nobody(command) if who == "nobody" else with_open_home(command),
        capture_output=True,
        text=True,
        cwd=TESTS.parent.parent,
        env={"HOME": "/tmp", "PATH": os.defpath},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
