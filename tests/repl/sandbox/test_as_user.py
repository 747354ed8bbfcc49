"""Attacks, faults and forks once more as an ordinary user, where the tests are run by root.

A root's interpreter often lies under a home that is closed to others. Then the run gets a mount namespace of its own,
in which that home is open and holds nothing but the interpreter.
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
    drop += ["--inh-caps=-all", "--bounding-set=-all", *command]
    base = Path(sys.base_prefix)
    closed = closed_directory(base / "bin")
    if closed is None:
        return drop
    keep, home = shlex.quote(str(base)), shlex.quote(str(closed))
    script = f"""
        set -e
        kept=$(mktemp -d)
        mount --bind {keep} "$kept"
        mount -t tmpfs -o mode=755 tmpfs {home}
        mkdir -p {keep}
        mount --move "$kept" {keep}
        rmdir "$kept"
        exec {shlex.join(drop)}
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


@pytest.mark.slow
@pytest.mark.usefixtures("user_can_run")
@pytest.mark.parametrize("name", ["sandbox/test_sandbox.py", "sandbox/test_faults.py", "host/test_fork.py"])
def test_as_ordinary_user(name: str):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / name)]
    done = subprocess.run(
        as_nobody(command),
        capture_output=True,
        text=True,
        cwd=TESTS.parent.parent,
        env={"HOME": "/tmp", "PATH": os.defpath},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
