"""Live runs on the real vLLM, the real REPL and the shipped model: one loses its engine, its REPLs and at last its own
life, and goes on each time; others train in bfloat16, and an adapter alone, in an environment with
tools and one without."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
psutil = pytest.importorskip("psutil")  # comes with vLLM

from rlm_env.cli import main  # noqa: E402
from rlm_env.origin import origin_of  # noqa: E402
from rlm_env.rollout import read_rollouts  # noqa: E402
from rlm_env.runs.folder import read_run_config  # noqa: E402
from rlm_env.train.report.metrics import read_metrics  # noqa: E402
from rlm_env.train.rl.journal import read_journal  # noqa: E402
from rlm_env.train.sync.sync_check import TOLERANCES  # noqa: E402
from tests.llm.vllm.processes import exists, wait_for  # noqa: E402

REPOSITORY = Path(__file__).parents[3]
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

SETTINGS = [
    "steps=4",
    "optimizer.warmup_steps=1",
    "groups.size=4",
    "groups.per_step=2",
    "held_out.n=4",
    "held_out.every=2",
    "checkpoint.every=3",
]


def below(pid: int, what: str) -> list[psutil.Process]:
    """The processes below `pid` whose command line says `what`. Others may end meanwhile."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if what in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill(pid: int, what: str) -> int:
    """SIGKILL to all processes below `pid` whose command line says `what`, but not to those that watch over them, which
    end what is left of a vLLM; how many."""
    killed = 0
    for process in below(pid, what):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any(word.endswith("supervise.py") for word in process.cmdline()):
                process.kill()
                killed += 1
    return killed


def test_a_run_survives_its_engine_its_repls_and_its_own_death(tmp_path):
    out = tmp_path / "out"

    def steps() -> list[int]:
        return [line["step"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line]

    def wait_for_step(step: int) -> None:
        deadline = time.monotonic() + 900
        while step not in steps():
            assert run.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            time.sleep(0.05)

    command = ["train", "configs/train/tiny.toml", "--out", str(out), "--dump-samples", str(tmp_path / "samples")]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    with open(tmp_path / "stderr", "w") as stderr:
        run = subprocess.Popen([sys.executable, "-m", "rlm_env.cli", *command], cwd=REPOSITORY, stderr=stderr)
    try:
        wait_for_step(1)
        assert kill(run.pid, "vllm.entrypoints")
        assert kill(run.pid, "child/boot.py")
        wait_for_step(2)
        engine = [process.pid for what in ("vllm.entrypoints", "EngineCore") for process in below(run.pid, what)]
        assert len(engine) >= 3  # the supervisor, the server, its core
    finally:
        run.kill()
        run.wait()
    assert wait_for(lambda: not any(map(exists, engine)), 30.0), "an engine dies with its run"
    assert "starting vLLM with tiny-rlm ..." in (tmp_path / "stderr").read_text()
    assert main([*command, "--resume"]) == 0

    assert steps() == [1, 2, 3, 4]
    record = read_run_config(out)["record"]
    assert record["packages"]["oolong-rlm"]["sha256"] == origin_of("oolong-rlm").sha256
    (engine,) = record["engines"].values()
    assert (engine["engine"], engine["logprobs_mode"]) == ("vllm", "processed_logprobs")
    lines = read_metrics(out / "metrics.jsonl")
    first = next(line for line in lines if line["step"] == 1 and "loss" in line)
    assert first["log_ratio_abs"] < 1e-5
    assert first["tokens/sub"] > 0
    assert all(line["off_policy_steps/max"] <= 2 for line in lines if "loss" in line)
    assert [line["step"] for line in lines if "eval/oolong-rlm/score" in line] == [0, 2, 4]
    history = read_journal(out / "journal.jsonl")
    trained = [group for groups in history.batches.values() for group in groups]
    assert len(trained) == len(set(trained)) == 8
    scored = [rollout.id for rollout in read_rollouts(out / "rollouts.jsonl") if rollout.score is not None]
    assert len(scored) == len(set(scored))
    assert (out / "model" / "model.safetensors").exists()

    again = [
        "train",
        "configs/train/tiny.toml",
        "--from-samples",
        str(tmp_path / "samples"),
        "--out",
        str(tmp_path / "again"),
    ]
    assert main([*again, "--set", "steps=4", "--set", "optimizer.warmup_steps=1"]) == 0
    losses = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "again" / "metrics.jsonl")}
    assert losses == {line["step"]: line["loss"] for line in lines if "loss" in line}


BFLOAT16 = ["trainer.dtype=bfloat16"]
ADAPTER = ["trainer.lora.rank=8", "trainer.lora.alpha=16", "sync.method=lora"]
TWO = "environments=[{name='deepdive-rlm', options={profile='tiny'}}, {name='needle-rlm', options={profile='tiny'}}]"


@pytest.mark.parametrize(
    ("settings", "largest", "synced_within"),
    [(BFLOAT16, 0.02, TOLERANCES["bfloat16"]), ([*ADAPTER, TWO], 1e-5, 1e-5)],
    ids=["bfloat16", "adapter-with-tools"],
)
def test_trainer_and_engine_agree_on_what_was_sampled(tmp_path, settings, largest, synced_within):
    """The first step's ratios, on rollouts of weights that nothing has changed yet; afterwards the engine follows."""
    settings = ["steps=3", "optimizer.warmup_steps=1", "groups.size=4", "groups.per_step=2", "held_out.n=0", *settings]
    command = ["train", "configs/train/tiny.toml", "--out", str(tmp_path)]
    assert main([*command, *(part for setting in settings for part in ("--set", setting))]) == 0
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert 0 < lines[0]["log_ratio_abs"] < largest
    assert all(line["grad_norm"] > 0 and not line["skipped"] for line in lines)
    synced = [line for line in lines if "sync_mean_abs" in line]
    assert len(synced) >= 2
    assert all(line["sync_mean_abs"] < synced_within for line in synced)
    calls = [call for rollout in read_rollouts(tmp_path / "rollouts.jsonl") for call in rollout.sub_calls]
    assert any(call.tool_turns for call in calls) == (TWO in settings)
    assert (tmp_path / "model" / "model.safetensors").exists()
