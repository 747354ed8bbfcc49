"""A whole run on several engines, with stand-ins for the vLLMs: one is killed on the way, and the others go on."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("renderers")

from rlm_env.llm.base import Sampling
from rlm_env.rollout import Rollout, Turn, read_rollouts
from rlm_env.runs.folder import read_run_config
from rlm_env.train.report.metrics import read_metrics
from rlm_env.train.rl import trainer
from rlm_env.train.rl.config import TrainConfig
from tests.tiny_model import make_model
from tests.train.rl.test_loop import EnvironmentMix
from tests.train.scheduling import Scaffold
from tests.train.stand_in_vllm import StandInVLLM

QUESTION = [{"role": "user", "content": "Count."}]


class Asking(Scaffold):
    """Each rollout is one reply of two tokens; before the one that is called `victim`, the first engine is killed."""

    victim = "000003/0"

    def tasks(self, split):
        return EnvironmentMix(self).tasks("scripted", -1)

    async def rollout(self, task, llm, sub=None, *, id, context):
        assert sub is None
        if id == self.victim:
            self.victim = ""
            await StandInVLLM.made[0].kill()
        reply = await llm.complete(QUESTION, None, Sampling(max_tokens=2))
        found = await super().rollout(task, llm, id=id, context=context)
        return Rollout(id=id, task_id=task.id, answer=found.answer, turns=[Turn.from_completion(reply)])


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, short_check: None) -> type[StandInVLLM]:
    async def statistics(self: StandInVLLM) -> str:
        return "vllm:num_requests_running 1.0\n"

    monkeypatch.setattr(StandInVLLM, "made", [], raising=False)
    monkeypatch.setattr(StandInVLLM, "statistics", statistics, raising=False)
    monkeypatch.setattr("rlm_env.llm.vllm.server.VLLMServer", StandInVLLM)
    return StandInVLLM


@pytest.mark.slow
def test_a_run_loses_one_of_its_engines_and_goes_on(tmp_path: Path, stand_ins, monkeypatch) -> None:
    model = make_model(tmp_path / "small", hidden=32, layers=1)
    scaffold, out = Asking(), tmp_path / "out"
    monkeypatch.setattr(trainer, "EnvironmentMix", lambda *_: EnvironmentMix(scaffold))
    monkeypatch.setattr(trainer, "check_template", lambda *_: True)
    values = {
        "model": str(model),
        "out": str(out),
        "steps": 3,
        "environments": [{"name": "needle-rlm", "label": "scripted"}],
        "groups": {"size": 4, "per_step": 2, "concurrency": 8},
        "trainer": {"dtype": "float32", "device": "cpu", "pack_tokens": 1024, "threads": 1},
        "optimizer": {"lr": 1e-2},
        "engines": [{"name": name, "server": {"max_model_len": 1024}} for name in ("first", "second")],
        "held_out": {"n": 0},
    }
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(trainer, "interruptible", lambda work: asyncio.wait_for(work, 100))
    trainer.train(TrainConfig.model_validate(values), console)

    lines = [line for line in read_metrics(out / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["off_policy_steps/max"] <= 1 for line in lines)
    first, second, third = stand_ins.made
    assert (first.options["log_path"].name, second.options["log_path"].name) == (
        "vllm-first-0.log",
        "vllm-second-0.log",
    )
    assert third.options["log_path"].name == "vllm-first-1.log"
    assert first.options["seed"] != second.options["seed"] != third.options["seed"]
    record = read_run_config(out)["record"]
    assert set(record["engines"]) == {"first", "second"}
    events = record["engine_events"]
    assert {event["engine"] for event in events} == {"first"}
    assert f"engine first {events[0]['what']}" in " ".join(console.file.getvalue().split())
    rollouts = list(read_rollouts(out / "rollouts.jsonl"))
    assert all(rollout.error is None for rollout in rollouts)  # what was in flight was asked of the other
    assert all(0 <= rollout.group.policy_version <= rollout.group.last_policy_version <= 3 for rollout in rollouts)
    assert not any(server.alive for server in stand_ins.made)
