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
