"""A short live run with two engines, one started by the run and one by somebody else, which is the session's. The first
is killed on the way: the run goes on, and what is sampled has the versions of the engines that sampled it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("psutil")  # comes with vLLM

from rlm_env.llm import VLLMServer
from rlm_env.rollout import read_rollouts
from rlm_env.runs.folder import read_run_config
from rlm_env.train.report.metrics import read_metrics
from rlm_env.train.sync.engine_watch import parse_statistics
from tests.train.rl.test_live import REPOSITORY, kill

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="session")]

SETTINGS = [
    "steps=4",
    "optimizer.warmup_steps=1",
    "groups.size=4",
    "groups.per_step=2",
    "held_out.n=2",
    "held_out.every=0",
]


def steps_of(out: Path) -> list[int]:
    return [line["step"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line]


def train_and_kill(config: Path, out: Path) -> tuple[int, bool, str]:
    """Trains, and kills the run's own engine after the first step; exit code, whether it was killed, what was said."""
    command = ["train", str(config), "--out", str(out)]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    said = config.with_name("stderr")
    with open(said, "w") as stderr:
        run = subprocess.Popen([sys.executable, "-m", "rlm_env.cli", *command], cwd=REPOSITORY, stderr=stderr)
    deadline, killed = time.monotonic() + 900, False
    try:
        while run.poll() is None and time.monotonic() < deadline:
            if not killed and 1 in steps_of(out):
                killed = bool(kill(run.pid, "vllm.entrypoints"))
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    return run.returncode, killed, said.read_text()


async def tokens_served(server: VLLMServer) -> float:
    return parse_statistics(await server.statistics())["generation_tokens"]


async def test_a_run_on_two_engines_loses_one_of_them(
    vllm_server: VLLMServer, tiny_model_path: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "out", tmp_path / "two.toml"
    entries = f'[[engines]]\nname = "ours"\n[[engines]]\nname = "theirs"\nbase_url = "{vllm_server.base_url}"\n'
    config.write_text((REPOSITORY / "configs/train/tiny.toml").read_text() + entries)
    before = await tokens_served(vllm_server)
    try:
        code, killed, said = await asyncio.to_thread(train_and_kill, config, out)
    finally:
        await vllm_server.reload_weights(tiny_model_path)
    assert code == 0, said
    assert killed
    assert await tokens_served(vllm_server) > before

    assert steps_of(out) == [1, 2, 3, 4]
    record = read_run_config(out)["record"]
    assert set(record["engines"]) == {"ours", "theirs"}
    lost = record["engine_events"][0]
    assert lost["engine"] == "ours"
    assert "engine ours" in said
    lines = [line for line in read_metrics(out / "metrics.jsonl") if "loss" in line]
    assert lines[0]["log_ratio_abs"] < 1e-5
    assert all(line["off_policy_steps/max"] <= 2 for line in lines)
    assert all(line["sync_mean_abs"] < 1e-5 for line in lines if "sync_mean_abs" in line)
    rollouts = list(read_rollouts(out / "rollouts.jsonl"))
    assert sum(rollout.score is not None for rollout in rollouts) >= 32
    for rollout in rollouts:
        place = rollout.group
        assert 0 <= place.policy_version <= place.last_policy_version <= 4
