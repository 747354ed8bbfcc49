"""The command on a local vLLM of its own: killed in the middle, resumed to the end, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.word_count import lines

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROLLOUTS = Path("out/rollouts.jsonl")
COMMAND = "import sys; from rlm_env.cli import main; sys.exit(main(sys.argv[1:]))"
ARGUMENTS = ["-n", "16", "--scaffolds", "standard,rlm", "--set", "options.lengths=20,4000", "--concurrency", "2"]
ARGUMENTS += [
    "--set",
    "rollout.max_turns=2",
    "--set",
    "rollout.root.max_tokens=48",
    "--set",
    "rollout.prompt=tiny",
    "--out",
    "out",
]


def start(model: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "eval", "word-count", "--model", str(model), *ARGUMENTS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def engine_processes() -> list[int]:
    """Processes that serve a vLLM from the current folder's run (its log is their output)."""
    log = str(Path("out").resolve())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "fd" / "1").startswith(log):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.timeout(600)
def test_a_killed_engine_costs_no_finished_rollout(workplace, tiny_model_path):
    process = start(tiny_model_path)
    while len(lines(ROLLOUTS)) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    engine = engine_processes()
    assert engine
    for pid in engine:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    before = lines(ROLLOUTS)
    assert process.returncode == 3, err
    assert "rlm-env eval out/config.toml --resume" in err
    assert f"starting vLLM with {tiny_model_path.name}" in err
    assert "out/vllm-" in err
    assert 4 <= len(before) < 32
    assert json.loads(Path("out/summary.json").read_text())["status"] == "engine unavailable"

    again = start(tiny_model_path, "--resume")
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, err
    assert lines(ROLLOUTS)[: len(before)] == before
    assert len({(r["scaffold"], r["task_id"]) for r in lines(ROLLOUTS)}) == 32
    assert engine_processes() == []
    standard, rlm = json.loads(Path("out/summary.json").read_text())["scaffolds"]
    assert standard["outcomes"]["overflow"] == 8
    assert standard["outcomes"]["error"] == 0
    assert standard["needed_prompt"] > 2048
    assert rlm["outcomes"]["overflow"] == rlm["outcomes"]["error"] == 0
    assert 0 < rlm["longest_prompt"] <= 2048
    assert all(turn["logprobs"] for r in lines(ROLLOUTS) for turn in r["turns"])
    assert "root prompt tokens, longest" in out
