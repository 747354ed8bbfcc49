"""Adapters into the real vLLM while it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rlm_env.llm import Sampling, VLLMServer  # noqa: E402
from rlm_env.train.sync.config import SyncConfig  # noqa: E402
from rlm_env.train.sync.engine import TrainEngine  # noqa: E402
from rlm_env.train.sync.local_engine import LocalEngine  # noqa: E402
from rlm_env.train.sync.sync_check import SyncError  # noqa: E402
from rlm_env.train.sync.weight_sync import make_sync  # noqa: E402
from tests.packages import needs  # noqa: E402
from tests.train.sync.test_engine import kill  # noqa: E402
from tests.train.sync_stand_in import StandIn, differences  # noqa: E402

needs("peft")
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]

LORA: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
GREEDY = Sampling(max_tokens=12, temperature=0.0)


@pytest.mark.slow
async def test_adapters_arrive_and_outlive_the_engine(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine for all that matters, since a start is most of the time."""
    trainer = StandIn(tiny_model_path, lora=LORA)
    sync = make_sync(SyncConfig(method="lora"), tmp_path / "weights", "float32")
    async with LocalEngine(tiny_model_path, log_folder=tmp_path, dtype="float32", lora_rank=4) as engine:
        llm = engine.llm
        assert (await sync.start(trainer, engine))["sync_mean_abs"] < 1e-5
        for size in (1.0, 1e-4):
            trainer.step(size)
            found = await sync.publish(trainer.version)
            assert found["sync_mean_abs"] < 1e-5
            assert found["sync_change_share"] == pytest.approx(1, abs=0.02)
        trainer.step()
        with monkeypatch.context() as patch:
            patch.setattr(VLLMServer, "load_adapter", lambda server, *_: server.reset_prefix_cache())
            with pytest.raises(SyncError, match=r"made -?\d+% of the trainer's last change"):
                await sync.publish(trainer.version)
        await sync.publish(trainer.version)
        expected = await llm.complete([{"role": "user", "content": "Count."}], None, GREEDY)
        kill(engine, "api_server")
        await engine.restart()
        found = await llm.complete([{"role": "user", "content": "Count."}], None, GREEDY)
        assert found.completion_ids == expected.completion_ids
        assert (await differences(sync)).mean_abs < 1e-5


async def test_engine_without_room_for_an_adapter(train_engine: TrainEngine, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="lora_rank"):
        await train_engine.load_adapter(tmp_path, 1)
