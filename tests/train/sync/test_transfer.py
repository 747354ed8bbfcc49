"""Weights out of the trainer's memory, by vLLM's own trainer classes, into a stand-in for the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("renderers")
pytest.importorskip("transformers")

from rlm_env.llm import EngineUnavailable, Sampling  # noqa: E402
from rlm_env.train.sync import transfer  # noqa: E402
from rlm_env.train.sync.config import SyncConfig  # noqa: E402
from rlm_env.train.sync.local_engine import LocalEngine  # noqa: E402
from rlm_env.train.sync.sync_check import SyncError  # noqa: E402
from rlm_env.train.sync.transfer_check import trainer_gpus, transfer_refusal  # noqa: E402
from rlm_env.train.sync.weight_sync import make_sync  # noqa: E402
from tests.packages import needs  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402
from tests.train.sync.stand_in_transfer import TransferStandIn, by_reference  # noqa: E402
from tests.train.sync_stand_in import StandIn  # noqa: E402

QUESTION = [{"role": "user", "content": "Count."}]
UPDATE = ["start_weight_update", "update_weights", "finish_weight_update"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", hidden=32, layers=1)


@pytest.fixture(params=["ipc", "nccl"])
async def engine(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_check: None
) -> AsyncIterator[LocalEngine]:
    needs("vllm")
    by_reference(monkeypatch)
    monkeypatch.setattr(transfer, "_SENDERS", {})
    monkeypatch.setattr(TransferStandIn, "made", [], raising=False)
    monkeypatch.setattr("rlm_env.llm.vllm.server.VLLMServer", TransferStandIn)
    async with LocalEngine(folder, log_folder=tmp_path, dtype="float32", method=request.param) as engine:
        yield engine


def sync_for(engine: LocalEngine, tmp_path: Path) -> Any:
    return make_sync(SyncConfig(method=engine._method), tmp_path / "weights", "float32")


async def test_weights_arrive_without_a_folder_and_are_verified(
    engine: LocalEngine, folder: Path, tmp_path: Path
) -> None:
    trainer, sync = StandIn(folder), sync_for(engine, tmp_path)
    assert (await sync.start(trainer, engine))["sync_mean_abs"] < 1e-5
    server = TransferStandIn.made[-1]
    assert server.calls[0] == "init_weight_transfer_engine"
    assert {name for name in server.calls[1:]} == set(UPDATE)  # canary weights, then the right ones
    assert server.calls.count("finish_weight_update") == 2
    trainer.step()
    found = await sync.publish(trainer.version)
    assert found["sync_change_share"] == pytest.approx(1, abs=0.01)
    assert server.calls.count("init_weight_transfer_engine") == 1
    assert engine.version == 1
    assert list(sync.folder.glob("**/*.safetensors")) == []
    reply = await engine.llm.complete(QUESTION, None, Sampling(max_tokens=2, temperature=0.0))
    assert reply.weight_versions == [[0, 1]]


async def test_an_engine_that_dies_ends_the_run(engine: LocalEngine, folder: Path, tmp_path: Path) -> None:
    trainer, sync = StandIn(folder), sync_for(engine, tmp_path)
    await sync.start(trainer, engine)
    await TransferStandIn.made[-1].kill()
    with pytest.raises(EngineUnavailable, match="not on disk: go on with --resume"):
        await engine.restart()
    with pytest.raises(EngineUnavailable):  # it has the first weights: nobody may sample from them
        await engine.llm.complete(QUESTION, None, Sampling(max_tokens=2))


async def test_a_refusal_says_what_vllm_said(
    engine: LocalEngine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, sync = StandIn(folder), sync_for(engine, tmp_path)
    await sync.start(trainer, engine)
    TransferStandIn.made[-1].updating = True
    with pytest.raises(SyncError, match=r"did not take version 1.*already active"):
        await sync.publish(1)


async def test_an_engine_that_hangs_in_a_transfer_does_not_hang_the_trainer(
    engine: LocalEngine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.distributed.weight_transfer import ipc_engine, nccl_engine

    trainer, sync = StandIn(folder), sync_for(engine, tmp_path)
    await sync.start(trainer, engine)
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        released.wait(60)
        return []

    monkeypatch.setattr(nccl_engine, "packed_nccl_broadcast_producer", hang)
    monkeypatch.setattr(ipc_engine, "packed_ipc_producer", hang)
    monkeypatch.setattr(transfer, "CONTROL_TIMEOUT", 0.2)
    message = rf"the engine vllm at http\S+ hangs in the transfer of weights by {engine._method}: .*0\.2 s.*--resume"
    try:
        with pytest.raises(SyncError, match=message):
            await asyncio.wait_for(sync.publish(1), 30)
        assert transfer._SENDERS == {}  # the next transfer makes a connection of its own
        assert engine.version == 0
    finally:
        released.set()


def refusal(method: str, **changed: Any) -> str | None:
    usual: dict[str, Any] = {"device": "cuda", "cpu_engine": False, "trainer": ["0", "1"], "engine": ["2"]}
    return transfer_refusal(method, **usual | changed)


@pytest.mark.parametrize(
    ("method", "changed", "said"),
    [
        ("ipc", {"device": "cpu"}, "the trainer is on cpu"),
        ("nccl", {"cpu_engine": True}, "vLLM is the CPU build"),
        ("nccl", {"engine": ["1", "2"]}, r"share GPU 1, which NCCL refuses.*engine\.devices"),
        ("nccl", {"engine": None}, "share GPU 0, 1"),
        ("ipc", {}, 'GPU 2, which the trainer has not; for other GPUs use "nccl"'),
        ("nccl", {"stacked": ["model.layers.0.mlp.experts.gate_up_proj"]}, "stacks the weights of its experts"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(method: str, changed: dict[str, Any], said: str) -> None:
    import re

    assert re.search(said, refusal(method, **changed) or "")


def test_what_can_work_is_not_refused() -> None:
    assert refusal("nccl") is None
    assert refusal("nccl", engine=[]) is None  # on another machine
    assert refusal("ipc", engine=["1"]) is None
    assert refusal("ipc", engine=None) is None
    assert refusal("disk", device="cpu", cpu_engine=True) is None


def test_the_trainers_gpus_are_those_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert trainer_gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-5,6")
    assert trainer_gpus(2) == ["4", "GPU-5"]
