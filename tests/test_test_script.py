"""`scripts/test.sh`: which runs of pytest there are, and which exit status comes of theirs. pytest is a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "test.sh"
FAST = ["-m", "not vllm and not slow", "--numprocesses", "2", "--dist", "worksteal"]
SLOW = ["-m", "vllm or slow"]
STAND_IN = """#!/bin/sh
shift 2  # -m pytest
for argument; do printf '%s|' "$argument"; done >>runs
echo >>runs
exit "$(sed -n "$(wc -l <runs)p" codes)"
"""


@pytest.fixture
def run(tmp_path: Path):
    """Runs the script where each pytest ends with the next of `codes`: (exit status, stderr, arguments of each)."""
    programs = {"scripts/setup.sh": '#!/bin/sh\necho "$1" >level\n', "venv/bin/python": STAND_IN}
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    shutil.copy(SCRIPT, tmp_path / "scripts")

    def call(codes: tuple[int, ...], *arguments: str) -> tuple[int, str, list[list[str]]]:
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        command = ["bash", str(tmp_path / "scripts" / "test.sh"), *arguments]
        environment = {**os.environ, "RLM_ENV_VENV": "venv"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        made = (tmp_path / "runs").read_text().splitlines()
        return done.returncode, done.stderr, [line.split("|")[:-1] for line in made]

    return call


def test_all_tests_are_run_in_two_parts_and_both_get_the_arguments(run, tmp_path: Path):
    code, said, runs = run((0, 0), "-k", "a or b")
    assert code == 0
    assert runs == [[*FAST, "-k", "a or b"], [*SLOW, "-k", "a or b"]]
    assert said.splitlines()[0].startswith("fast tests: passed, ")
    assert said.splitlines()[1].startswith("tests with an engine, and slow ones: passed, ")
    assert (tmp_path / "level").read_text() == "full\n"


@pytest.mark.parametrize(
    ("codes", "status", "count"),
    [
        ((1, 0), 1, 2),
        ((0, 1), 1, 2),
        ((1, 1), 1, 2),
        ((5, 0), 0, 2),
        ((0, 5), 0, 2),
        ((5, 5), 5, 2),
        ((5, 1), 1, 2),
        ((1, 5), 1, 2),
        ((2,), 2, 1),
        ((3,), 3, 1),
        ((4,), 4, 1),
        ((1, 2), 1, 2),
        ((137, 0), 137, 2),
    ],
)
def test_the_exit_status(run, codes, status, count):
    code, said, runs = run(codes)
    assert (code, len(runs)) == (status, count)
    assert len(said.splitlines()) == count
    assert ("failed (exit status" in said) == (status not in (0, 5))
    assert ("nothing selected" in said) == (5 in codes)


@pytest.mark.parametrize("code", [0, 1, 2, 5])
def test_the_fast_tests_alone(run, tmp_path: Path, code):
    found, _, runs = run((code,), "--fast", "-x")
    assert found == code
    assert runs == [[*FAST, "-x"]]
    assert (tmp_path / "level").read_text() == "core\n"


def test_a_marker_expression_of_ones_own_makes_one_run(run):
    assert run((0,), "-m", "vllm")[2] == [["-m", "vllm"]]
    assert run((0, 0), "-mslow", "-q")[2][1] == ["-mslow", "-q"]
