"""Deaths, restarts and updates that come at the same time, with a stand-in for the vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("renderers")
pytest.importorskip("transformers")

from rlm_env.llm import EngineUnavailable, Request, Sampling, VLLMStartError  # noqa: E402
from rlm_env.runs.errors import ConfigError  # noqa: E402
from rlm_env.runs.options import EngineOptions  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.sync.config import SyncConfig  # noqa: E402
from rlm_env.train.sync.engine import TrainEngine  # noqa: E402
from rlm_env.train.sync.local_engine import LocalEngine  # noqa: E402
from rlm_env.train.sync.request_gate import ReplyDropped  # noqa: E402
from rlm_env.train.sync.sync_check import SyncError  # noqa: E402
from rlm_env.train.sync.weight_sync import WeightSync, make_sync  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402
from tests.train.stand_in_vllm import StandInVLLM  # noqa: E402
from tests.train.sync_stand_in import StandIn, differences  # noqa: E402

GREEDY = Sampling(max_tokens=2, temperature=0.0)
QUESTION = [{"role": "user", "content": "Count."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", hidden=32, layers=1)


@pytest.fixture
async def engine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_check: None
) -> AsyncIterator[TrainEngine]:
    monkeypatch.setattr(StandInVLLM, "made", [], raising=False)
    monkeypatch.setattr("rlm_env.llm.vllm.server.VLLMServer", StandInVLLM)
    async with LocalEngine(folder, log_folder=tmp_path, dtype="float32", max_restarts=2) as engine:
        yield engine
    assert not any(server.alive for server in StandInVLLM.made)


@pytest.fixture
async def followed(engine: TrainEngine, folder: Path, tmp_path: Path) -> tuple[StandIn, WeightSync]:
    """A trainer whose weights the engine serves, and what brought them there."""
    trainer, sync = StandIn(folder), make_sync(SyncConfig(), tmp_path / "weights", "float32")
    assert (await sync.start(trainer, engine))["sync_mean_abs"] < 1e-5
    return trainer, sync


async def in_flight(engine: TrainEngine, prompts: int, tokens: int) -> asyncio.Task[list[Any]]:
    """Requests of so many tokens of which the first prompt has 7 and waits for the next update to go on."""
    server = StandInVLLM.made[-1]
    server.hold_after = 7
    request = Request(QUESTION, sampling=Sampling(max_tokens=tokens, temperature=1.0))
    asked = asyncio.create_task(engine.llm.complete_many([request] * prompts))
    await server.held.wait()
    return asked


async def test_publish_and_restart(engine: TrainEngine, followed: tuple[StandIn, WeightSync], folder: Path) -> None:
    trainer, sync = followed
    trainer.step()
    found = await sync.publish(trainer.version)
    assert found["sync_change_share"] == pytest.approx(1, abs=0.01)
    await StandInVLLM.made[-1].kill()
    with pytest.raises(EngineUnavailable):
        await engine.llm.complete(QUESTION, None, GREEDY)
    await asyncio.gather(*(engine.restart() for _ in range(8)))
    first, second = StandInVLLM.made
    assert second.model == sync.folder / "v000001"
    assert (second.options["served_name"], second.options["log_path"].name) == (folder.name, "vllm-1.log")
    assert second.options["seed"] != first.options["seed"]
    assert (await engine.llm.complete(QUESTION, None, GREEDY)).completion_ids
    assert (await differences(sync)).mean_abs < 1e-5


@pytest.mark.slow
async def test_death_at_any_moment_of_an_update(engine: TrainEngine, followed: tuple[StandIn, WeightSync]) -> None:
    """Before it, and after the new weights were loaded; others ask for a restart at the same time."""
    trainer, sync = followed
    trainer.step()
    await StandInVLLM.made[-1].kill()
    found, *_ = await asyncio.gather(sync.publish(trainer.version), *(engine.restart() for _ in range(4)))
    assert found["sync_mean_abs"] < 1e-5
    assert (engine.version, engine.restarts) == (1, 1)
    load = engine.load

    async def load_and_die(weights: Path, version: int) -> None:
        await load(weights, version)
        await StandInVLLM.made[-1].kill()

    engine.load = load_and_die
    trainer.step()
    assert (await sync.publish(trainer.version))["sync_mean_abs"] < 1e-5
    assert (engine.version, engine.restarts) == (2, 2)


async def test_an_update_brings_back_an_engine_whose_restart_has_failed(
    engine: TrainEngine, followed: tuple[StandIn, WeightSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update proves it: it answers at once, and is not started once more."""
    trainer, sync = followed
    await StandInVLLM.made[-1].kill()

    async def start(server: StandInVLLM) -> StandInVLLM:
        raise VLLMStartError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(StandInVLLM, "__aenter__", start)
        with pytest.raises(VLLMStartError, match="no memory"):
            await engine.restart()
    trainer.step()
    assert (await sync.publish(trainer.version))["sync_mean_abs"] < 1e-5
    assert (await engine.llm.complete(QUESTION, None, GREEDY)).completion_ids
    await engine.restart()
    assert (engine.version, engine.restarts) == (1, 2)


async def test_an_update_waits_for_an_engine_that_is_coming_back(
    engine: TrainEngine, followed: tuple[StandIn, WeightSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, sync = followed
    trainer.step()
    restarting = []

    async def die_and_come_back() -> None:
        await StandInVLLM.made[-1].kill()
        restarting.append(asyncio.create_task(engine.restart()))
        while not engine._lifecycle.locked():  # noqa: ASYNC110  the lock tells nobody
            await asyncio.sleep(0)

    monkeypatch.setattr(sync, "_fill_cache", die_and_come_back)  # the last thing before the engine is to stand still
    found = await asyncio.wait_for(sync.publish(trainer.version), 60)
    await asyncio.gather(*restarting)
    assert found["sync_mean_abs"] < 1e-5
    assert (engine.version, engine.restarts) == (1, 1)
    assert (await asyncio.wait_for(engine.llm.complete(QUESTION, None, GREEDY), 60)).completion_ids


async def test_an_engine_that_dies_on_canary_weights_does_not_come_back_on_them(
    engine: TrainEngine, followed: tuple[StandIn, WeightSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died while it was to take new weights, was started again, and dies while it is tried with others."""
    trainer, sync = followed
    trainer.step()
    await StandInVLLM.made[-1].kill()

    async def away() -> None:
        await StandInVLLM.made[-1].kill()
        raise EngineUnavailable("it does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(sync, "_engine_logprobs", away)
        with pytest.raises(EngineUnavailable, match="it does not answer"):
            await sync.publish(trainer.version)
    await engine.restart()
    assert (engine.version, StandInVLLM.made[-1].model) == (1, sync.folder / "v000001")
    assert (await differences(sync)).mean_abs < 1e-5


async def test_a_cancelled_caller_leaves_the_others_their_engine(engine: TrainEngine) -> None:
    await StandInVLLM.made[-1].kill()
    callers = [asyncio.create_task(engine.restart()) for _ in range(3)]
    await asyncio.sleep(0.02)
    callers[0].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None, None]
    assert (engine.alive, engine.restarts) == (True, 1)


async def test_an_engine_that_dies_again_and_again(engine: TrainEngine) -> None:
    for _ in range(2):
        await StandInVLLM.made[-1].kill()
        await engine.restart()
    await StandInVLLM.made[-1].kill()
    with pytest.raises(VLLMStartError, match="has died 3 times"):
        await engine.restart()


async def test_folder_that_the_engine_refuses(engine: TrainEngine, followed: tuple[StandIn, WeightSync]) -> None:
    trainer, sync = followed
    served, trainer.export = engine.served, lambda target: target.mkdir()
    with pytest.raises(SyncError, match="did not take version 1"):
        await sync.publish(1)
    assert engine.served == served
    assert served.exists()
    assert engine.restarts == 0


async def test_logprobs_before_temperature_are_refused(engine: TrainEngine, folder: Path, tmp_path: Path) -> None:
    """That the real vLLM is found out is shown in tests/llm/vllm/test_chat_endpoint.py."""
    options = EngineOptions(extra_args=("--logprobs-mode", "raw_logprobs"))
    raw = LocalEngine(folder, options, log_folder=tmp_path, dtype="float32")
    with pytest.raises(ConfigError, match=r"engine\.extra_args.*raw_logprobs.*leave --logprobs-mode out"):
        await raw.__aenter__()
    assert not raw.alive
    assert [server.alive for server in StandInVLLM.made] == [True, False]


async def test_adapters_must_fit(engine: TrainEngine, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="lora_rank"):
        await engine.load_adapter(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"trainer\.lora\.rank.*512"):
        LocalEngine(folder, log_folder=tmp_path, dtype="float32", lora_rank=513)


async def test_requests_in_flight_go_on_under_the_new_weights(
    engine: TrainEngine, followed: tuple[StandIn, WeightSync], folder: Path
) -> None:
    """Their tokens stay, and say which weights sampled them; what follows is of the new weights throughout."""
    trainer, sync = followed
    asked = await in_flight(engine, prompts=2, tokens=12)
    old = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.step(0.3)
    found = await sync.publish(trainer.version)
    assert found["sync_requests_kept"] == 2
    assert found["sync_requests_cut"] == 0
    first, second = await asked
    assert (first.weight_versions, second.weight_versions) == ([[0, 0], [7, 1]], [[0, 1]])  # one had not begun
    before_step = StandIn(folder)
    before_step.model.load_state_dict(old)
    for reply, boundary in ((first, 7), (second, 0)):
        assert len(reply.completion_ids) == 12
        ids, sampled = reply.prompt_ids + reply.completion_ids, [False] * len(reply.prompt_ids) + [True] * 12
        sample = Sample(ids, sampled, [0.0] * len(ids), "reply")
        (before,), (after,) = before_step.score([sample]), trainer.score([sample])
        expected = before[:boundary] + after[boundary:]
        assert max(abs(a - b) for a, b in zip(expected, reply.logprobs, strict=True)) < 1e-4
    assert (await engine.llm.complete(QUESTION, None, GREEDY)).weight_versions == [[0, 1]]


async def test_requests_end_before_an_update_of_an_engine_that_does_not_count_their_tokens(
    engine: TrainEngine, followed: tuple[StandIn, WeightSync]
) -> None:
    """So that no reply says of tokens that they are of other weights than they are."""
    trainer, sync = followed
    engine.counts_tokens = False
    asked = asyncio.create_task(engine.llm.complete(QUESTION, None, Sampling(max_tokens=40, temperature=1.0)))
    while not StandInVLLM.made[-1].sampled:  # noqa: ASYNC110  the stand-in tells nobody
        await asyncio.sleep(0)
    trainer.step()
    assert (await sync.publish(trainer.version))["sync_requests_kept"] == 0
    assert (await asked).weight_versions == [[0, 0]]
    assert (await engine.llm.complete(QUESTION, None, GREEDY)).weight_versions == [[0, 1]]


async def test_what_weights_sampled_that_fail_their_check_is_dropped(
    engine: TrainEngine, followed: tuple[StandIn, WeightSync]
) -> None:
    trainer, sync = followed
    asked = await in_flight(engine, prompts=1, tokens=8)
    export = trainer.export

    def export_and_move(target: Path) -> None:
        export(target)
        trainer.step(0.3)  # so that the trainer answers with other weights than it has written

    trainer.export = export_and_move
    with pytest.raises(SyncError, match="serves other weights"):
        await sync.publish(1)
    (dropped,) = await asked
    assert isinstance(dropped, ReplyDropped)
    with pytest.raises(ReplyDropped):
        await engine.llm.complete(QUESTION, None, GREEDY)
    trainer.export = export
    await sync.start(trainer, engine)
    assert (await engine.llm.complete(QUESTION, None, GREEDY)).completion_ids


@pytest.mark.usefixtures("followed")
async def test_an_engine_that_was_started_again_takes_no_weights(
    engine: TrainEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(server: StandInVLLM, weights: Path) -> None:
        pass

    monkeypatch.setattr(StandInVLLM, "reload_weights", nothing)
    await StandInVLLM.made[-1].kill()
    with pytest.raises(SyncError, match="updates do not reach it"):
        await engine.restart()
    with pytest.raises(EngineUnavailable, match="being checked"):
        await engine.llm.complete(QUESTION, None, GREEDY)
