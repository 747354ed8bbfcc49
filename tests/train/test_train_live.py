"""A live run on the real vLLM, the real REPL and the shipped model: it loses its engine, its REPLs and at last its own
life, and goes on each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("vllm")

from rlm_env.cli import main
from rlm_env.rollout import read_rollouts
from rlm_env.train.journal import read_journal
from rlm_env.train.metrics import read_metrics

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

SETTINGS = ["steps=4", "groups.size=4", "groups.per_step=2", "held_out.n=4", "held_out.every=2", "checkpoint.every=3"]


def children(pid: int) -> list[tuple[int, str]]:
    """All processes below one, with their command lines."""
    tasks = Path(f"/proc/{pid}/task")
    found = []
    for task in tasks.iterdir() if tasks.exists() else ():
        for child in (task / "children").read_text().split():
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            found += [(int(child), command), *children(int(child))]
    return found


def kill(pid: int, what: str) -> int:
    """SIGKILL to all processes below `pid` whose command line says `what`; how many."""
    chosen = [child for child, command in children(pid) if what in command]
    for child in chosen:
        os.kill(child, signal.SIGKILL)
    return len(chosen)


def test_a_run_survives_its_engine_its_repls_and_its_own_death(tmp_path):
    def steps() -> list[int]:
        return [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]

    def wait_for_step(step: int) -> None:
        deadline = time.monotonic() + 900
        while step not in steps():
            assert run.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            time.sleep(0.05)

    command = ["train", "configs/train/tiny.toml", "--out", str(tmp_path), "--dump-rows", str(tmp_path / "rows")]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    with open(tmp_path / "stderr", "w") as stderr:
        run = subprocess.Popen([sys.executable, "-m", "rlm_env.cli", *command], cwd=REPOSITORY, stderr=stderr)
    try:
        wait_for_step(1)
        assert kill(run.pid, "vllm.entrypoints")
        assert kill(run.pid, "repl/boot.py")
        wait_for_step(2)
    finally:
        run.kill()
        run.wait()
    assert main([*command, "--resume"]) == 0

    assert steps() == [1, 2, 3, 4]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    first = next(line for line in lines if line["step"] == 1 and "loss" in line)
    assert first["log_ratio_abs"] < 1e-5
    assert first["tokens/sub"] > 0
    assert all(line["staleness/max"] <= 1 for line in lines if "loss" in line)
    assert [line["step"] for line in lines if "eval/oolong-rlm/score" in line] == [0, 2, 4]
    history = read_journal(tmp_path / "journal.jsonl")
    trained = [group for groups in history.batches.values() for group in groups]
    assert len(trained) == len(set(trained)) == 8
    scored = [rollout.id for rollout in read_rollouts(tmp_path / "rollouts.jsonl") if rollout.score is not None]
    assert len(scored) == len(set(scored))
    assert (tmp_path / "model" / "model.safetensors").exists()

    again = [
        "train",
        "configs/train/tiny.toml",
        "--from-rows",
        str(tmp_path / "rows"),
        "--out",
        str(tmp_path / "again"),
    ]
    assert main([*again, "--set", "steps=4"]) == 0
    losses = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "again" / "metrics.jsonl")}
    assert losses == {line["step"]: line["loss"] for line in lines if "loss" in line}
