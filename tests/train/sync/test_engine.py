"""The engine of a training run dies, and comes back as it was. On the real vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rlm_env.llm import EngineUnavailable, LLMError, Request, Sampling, VLLMStartError  # noqa: E402
from rlm_env.train.sync.engine import TrainEngine  # noqa: E402
from rlm_env.train.sync.weight_sync import WeightSync  # noqa: E402
from tests.llm.vllm.processes import exists, group_of  # noqa: E402
from tests.train.sync_stand_in import StandIn, differences  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]

GREEDY = Sampling(max_tokens=12, temperature=0.0)
ENDLESS = Sampling(max_tokens=900, temperature=1.0, extra={"ignore_eos": True, "stop_token_ids": []})


def ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def kill(engine: TrainEngine, title: str) -> None:
    """kill -9 of the process of the engine's tree whose command line has `title` in it, or of its supervisor."""
    pids = [pid for pid in group_of(engine._server) if title.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (pid,) = pids if title != "supervisor" else [engine._server._supervisor.pid]
    os.kill(pid, signal.SIGKILL)


async def test_an_engine_that_answers_is_not_restarted(train_engine: TrainEngine) -> None:
    before = train_engine.restarts, train_engine.base_url
    await asyncio.gather(*(train_engine.restart() for _ in range(4)))
    assert (train_engine.restarts, train_engine.base_url) == before
    assert train_engine.alive
    assert (await train_engine.llm.describe())["logprobs_mode"] == "processed_logprobs"  # measured at the start
    assert train_engine.llm.context_window == 2048


async def die_in_a_batch(engine: TrainEngine, victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills it while it samples: that batch and what comes after it fail, it is not restarted beyond its limit, and the
    try leaves none of its processes."""
    batch = asyncio.create_task(engine.llm.complete_many([Request(ask("Count."), sampling=ENDLESS)] * 16))
    await asyncio.sleep(0.5)
    pids = group_of(engine._server)
    kill(engine, victim)
    assert all(isinstance(answer, LLMError) for answer in await asyncio.wait_for(batch, 60))
    with pytest.raises(EngineUnavailable, match=str(engine.log_path)):
        await engine.llm.complete(ask("still there?"), None, GREEDY)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_max_restarts", engine.restarts)
        with pytest.raises(VLLMStartError, match=r"has died \d+ times"):
            await engine.restart()
    assert not any(map(exists, pids))


async def test_killed_engine_comes_back_with_the_weights_last_published(
    train_engine: TrainEngine, trainer: StandIn, sync: WeightSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync.start(trainer, train_engine)
    trainer.step(0.2)
    await sync.publish(trainer.version)
    llm, restarts = train_engine.llm, train_engine.restarts
    expected = await llm.complete_many([Request(ask(f"line {n}"), sampling=GREEDY) for n in range(8)])
    await die_in_a_batch(train_engine, "supervisor", monkeypatch)
    restarting = [asyncio.create_task(train_engine.restart()) for _ in range(8)]
    await asyncio.sleep(0.2)
    with pytest.raises(EngineUnavailable):  # at once: nobody waits for a start of a minute
        await asyncio.wait_for(llm.complete(ask("already there?"), None, GREEDY), 5)
    await asyncio.gather(*restarting)
    assert train_engine.restarts == restarts + 1
    assert train_engine.llm is llm
    assert train_engine.version == trainer.version
    found = await llm.complete_many([Request(ask(f"line {n}"), sampling=GREEDY) for n in range(8)])
    assert [answer.completion_ids for answer in found] == [answer.completion_ids for answer in expected]
    assert (await differences(sync)).mean_abs < 1e-5
    trainer.step(0.2)
    assert (await sync.publish(trainer.version))["sync_mean_abs"] < 1e-5


async def test_engine_whose_core_dies_before_an_update_comes_back_with_the_new_weights(
    train_engine: TrainEngine, trainer: StandIn, sync: WeightSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync.start(trainer, train_engine)
    restarts = train_engine.restarts
    await die_in_a_batch(train_engine, "EngineCore", monkeypatch)
    trainer.step()
    found = await sync.publish(trainer.version)
    assert found["sync_mean_abs"] < 1e-5
    assert train_engine.restarts == restarts + 1
    assert train_engine.version == trainer.version
    assert (await train_engine.llm.complete(ask("there?"), None, GREEDY)).completion_ids
