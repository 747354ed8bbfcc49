"""Attacks, faults and forks once more as an ordinary user, where the tests are run by root; and as a root whose REPLs
get user ids of their own.

Repeated are the tests with the marker `identity`: what they show hangs on whom the kernel lets read, write, signal,
trace, count and limit whom. The others of these files are about frames, texts and bookings, where the same code gives
the same outcome whoever runs it. Each of the two has one run of pytest, whose outcome is reported by file.

A root's interpreter often lies under a home that is closed to others, and then its REPLs keep its own user id. So the
run gets a mount namespace in which that home is open and holds nothing but the interpreter.
"""

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

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
    "repl.sandbox.test_sandbox",
    "repl.sandbox.test_faults",
    "repl.sandbox.test_hostile_channel",
    "repl.sandbox.test_machine_bounds",
    "repl.sandbox.test_shared_objects",
    "repl.sandbox.test_closed_packages",
    "repl.sandbox.test_scratch",
    "repl.host.test_fork",
    "repl.host.test_lateness",
    "repl.host.test_waits_and_resources",
    "repl.child.test_idioms",
    "repl.child.test_science",
    "scaffolds.test_forged_prompts",
)


@dataclass
class Repeated:
    """What came of a file's tests."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)


@pytest.fixture(scope="module", params=["nobody", "root with private user ids"])
def run(request: pytest.FixtureRequest, user_can_run: None) -> dict[str, Repeated]:
    """All marked tests once more; the outcome by file, under the names of FILES."""
    folder = Path(tempfile.mkdtemp(prefix="rlm-env-as-user-"))
    folder.chmod(0o777)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "identity", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [str(TESTS / "sandbox"), str(TESTS / "host"), str(TESTS / "child")]
    command += [str(TESTS.parent / "scaffolds" / "test_forged_prompts.py")]
    done = subprocess.run(
        as_nobody(command) if request.param == "nobody" else with_open_home(command),
        capture_output=True,
        text=True,
        cwd=TESTS.parent.parent,
        env={"HOME": "/tmp", "PATH": os.defpath},
    )
    assert report.exists(), done.stdout[-4000:] + done.stderr[-1000:]
    found: dict[str, Repeated] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        repeated = found.setdefault(case.attrib["classname"].removeprefix("tests."), Repeated())
        outcome = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        if outcome is None:
            repeated.passed += 1
        elif outcome.tag != "skipped":
            repeated.failures.append(f"{case.attrib['name']}: {outcome.text}")
    shutil.rmtree(folder)
    assert bool(done.returncode) == any(repeated.failures for repeated in found.values()), done.stdout[-4000:]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_as_another(run: dict[str, Repeated], name: str):
    assert not run[name].failures, "\n".join(run[name].failures)
    assert run[name].passed
    assert run.keys() == set(FILES)
