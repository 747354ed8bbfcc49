"""Hundreds of random faults leave nothing behind: `scripts/bench/soak.py`, which also says what grew."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "bench" / "soak.py"


@pytest.mark.parametrize("faults", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_random_faults_leave_nothing_behind(faults: int):
    done = subprocess.run(
        [sys.executable, str(SOAK), "--faults", str(faults), "--seed", str(faults)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["kept"] + result["lost"] + result.get("cancelled", 0) >= faults
    assert result["lost"] > 0
    assert result["grown"] == []


@pytest.mark.slow
def test_honest_rollouts_beside_attackers_are_not_harmed():
    done = subprocess.run(
        [sys.executable, str(SOAK), "--neighbors", "2", "--seconds", "24"], capture_output=True, text=True
    )
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["grown"] == []
    assert result["attacks"] > 10
    assert result["repls_ended"] > 0
    assert result["honest"] > 20
    assert done.stderr == ""
