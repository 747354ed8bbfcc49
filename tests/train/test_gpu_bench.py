"""The bench for cards runs on a CPU with tiny shapes, every stage but the engine's.

In this process: torch, transformers and TRL take ten seconds of a core to import, and other tests have done it.
"""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

BENCH = Path(__file__).parents[2] / "scripts" / "bench" / "gpu.py"
STAGES = {"probe", "check", "tree", "attention", "head", "step", "trl", "export", "sync", "end"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_stage_runs_on_a_cpu(monkeypatch, capsys):
    command = [str(BENCH), "--device", "cpu", "--shapes", "tiny", "--no-engine", "--seconds", "1000"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.syspath_prepend(BENCH.parent)  # as where it is a script
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCH), run_name="__main__")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert ended.value.code == 0, [line for line in lines if "failed" in line]
    assert {line["stage"] for line in lines} == STAGES
    assert lines[-1]["failed"] == []
    assert sum(line["stage"] == "check" and line["passed"] for line in lines) >= 10
    (trl,) = (line for line in lines if line["stage"] == "trl")
    if importlib.util.find_spec("trl") and importlib.util.find_spec("datasets"):
        assert trl["tokens_per_s"] > 0
        assert trl["samples"] > 4
    else:
        assert "not installed" in trl["skipped"]
