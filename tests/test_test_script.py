"""`scripts/test.sh`: which runs of pytest there are, and which exit status comes of theirs. pytest is a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "test.sh"
FAST = ["-m", "not vllm and not slow", "--numprocesses", "2", "--dist", "worksteal"]
FOLDERS = ["tests/repl", "tests/evals", "tests/train/sync/test_lora_sync.py"]
ELSEWHERE = [f"--ignore={path}" for path in FOLDERS]
SLOW = ["-m", "slow and not vllm", *ELSEWHERE]
REPL = ["-m", "slow", *FOLDERS]
ENGINE = ["-m", "vllm and not slow"]
ENGINES = ["-m", "vllm and slow", *ELSEWHERE]
NAMES = [
    "fast tests",
    "slow tests",
    "slow tests of REPL, evaluations and adapters",
    "tests that share an engine",
    "tests with engines of their own",
]
STAND_IN = f"""#!/bin/sh
shift 2  # -m pytest
case "$2 $3" in
    not*) run=1 ;; "slow tests/repl") run=3 ;; slow*) run=2 ;;
    "vllm and n"*) run=4 ;; vllm*) run=5 ;; *) run=6 ;;
esac
echo "$RLM_ENV_REQUIRED_LEVELS" >levels
for argument; do printf '%s|' "$argument"; done >"run$run"
echo "here is $run"
if [ -e "wait$run" ]; then exec {sys.executable} -c "$(cat wait$run)"; fi
exit "$(sed -n "${{run}}p" codes)"
"""


@pytest.fixture
def run(tmp_path: Path):
    """Runs the script: (exit status, stdout, stderr, arguments of each pytest). `codes`: how the fast tests, the slow
    ones, those of the REPL, those that share an engine, those with their own, and chosen ones end."""
    programs = {"scripts/setup.sh": '#!/bin/sh\necho "$1" >level\n', "venv/bin/python": STAND_IN}
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    shutil.copy(SCRIPT, tmp_path / "scripts")

    def call(codes: tuple[int, ...], *arguments: str) -> tuple[int, str, str, list[list[str]]]:
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        command = ["bash", str(tmp_path / "scripts" / "test.sh"), *arguments]
        environment = {**os.environ, "RLM_ENV_VENV": "venv"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        made = [path.read_text().split("|")[:-1] for path in sorted(tmp_path.glob("run[1-6]"))]
        return done.returncode, done.stdout, done.stderr, made

    return call


def test_all_tests_are_run_in_five_parts_and_each_gets_the_arguments(run, tmp_path: Path):
    code, out, said, runs = run((0,) * 5, "-k", "a or b")
    assert code == 0
    assert runs == [[*part, "-k", "a or b"] for part in (FAST, SLOW, REPL, ENGINE, ENGINES)]
    *parts, time = said.splitlines()
    assert parts == [f"{name}: passed" for name in NAMES]
    assert time.endswith(" s in all")
    beside = ["engine | here is 4", "engines | here is 5", "repl | here is 3"]
    assert sorted(out.splitlines()) == sorted(["here is 1", "here is 2", *beside])
    assert (tmp_path / "level").read_text() == "full\n"


@pytest.mark.parametrize(
    ("bubblewrap", "given", "required"),
    [("exit 0", None, "jail"), ("exit 1", None, ""), ("exit 0", "", ""), ("exit 1", "guard", "guard")],
)
def test_the_level_jail_is_required_where_bubblewrap_can_start(
    run, tmp_path: Path, monkeypatch, bubblewrap: str, given: str | None, required: str
):
    program = tmp_path / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{bubblewrap}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("RLM_ENV_REQUIRED_LEVELS", raising=False)
    if given is not None:
        monkeypatch.setenv("RLM_ENV_REQUIRED_LEVELS", given)
    assert run((0,) * 5, "--fast")[0] == 0
    assert (tmp_path / "levels").read_text() == f"{required}\n"


def test_with_a_path_the_slow_tests_are_one_run(run, tmp_path: Path):
    path = "tests/repl::test_it"
    (tmp_path / "tests" / "repl").mkdir(parents=True)
    code, _, said, runs = run((0,) * 5, path)
    assert code == 0
    assert runs == [[*part, path] for part in (FAST, SLOW[:2], ENGINE, ENGINES[:2])]
    assert len(said.splitlines()) == 5


@pytest.mark.parametrize(
    ("codes", "status", "count"),
    [
        ((1, 0, 0, 0, 0), 1, 5),
        ((0, 1, 0, 0, 0), 1, 5),
        ((0, 0, 1, 0, 0), 1, 5),
        ((0, 0, 0, 1, 0), 1, 5),
        ((0, 0, 0, 0, 1), 1, 5),
        ((5, 0, 5, 5, 5), 0, 5),
        ((0, 5, 5, 5, 5), 0, 5),
        ((5, 5, 0, 5, 5), 0, 5),
        ((5, 5, 5, 5, 5), 5, 5),
        ((5, 1, 0, 0, 0), 1, 5),
        ((1, 5, 3, 3, 3), 1, 5),
        ((5, 5, 5, 5, 3), 3, 5),
        ((2,), 2, 1),
        ((3,), 3, 1),
        ((4,), 4, 1),
        ((137, 0, 0, 0, 0), 137, 5),
    ],
)
def test_the_exit_status(run, codes, status, count):
    code, _, said, runs = run(codes)
    assert (code, len(runs)) == (status, count)
    assert len(said.splitlines()) == count + 1
    assert ("failed (exit status" in said) == (status not in (0, 5))
    assert ("nothing selected" in said) == (5 in codes)


def test_the_runs_beside_it_end_with_an_interrupted_one(run, tmp_path: Path):
    interruptible = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); open('{}', 'w')"
    for number in (3, 4, 5):
        text = f"{interruptible.format(f'ready{number}')}; time.sleep(60); open('went on', 'w')"
        (tmp_path / f"wait{number}").write_text(text)
    waiting = "while not all(os.path.exists(f'ready{n}') for n in (3, 4, 5)): time.sleep(0.01)"
    (tmp_path / "wait2").write_text(f"import os, time\n{waiting}\nexit(2)")
    code, _, said, _ = run((0, 2, 0, 0, 0))
    assert code == 2
    assert said.splitlines()[-2] == "slow tests: failed (exit status 2)"
    assert not (tmp_path / "went on").exists()


@pytest.mark.parametrize("code", [0, 1, 2, 5])
def test_the_fast_tests_alone(run, tmp_path: Path, code):
    found, _, _, runs = run((code,), "--fast", "-x")
    assert found == code
    assert runs == [[*FAST, "-x"]]
    assert (tmp_path / "level").read_text() == "core\n"


def test_a_marker_expression_of_ones_own_makes_one_run(run):
    assert run((0, 0, 0, 0, 0, 7), "-m", "not slow or vllm", "-x")[3] == [["-m", "not slow or vllm", "-x"]]
    assert run((0, 0, 0, 0, 7, 0), "-mslow", "-q")[3] == [["-m", "not slow or vllm", "-x"], ["-mslow", "-q"]]
