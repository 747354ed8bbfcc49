"""New weights into the real vLLM while it is used, and every way in which that can go wrong unnoticed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from rlm_env.llm import Request, Sampling, VLLMServer  # noqa: E402
from rlm_env.messages import Completion  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.sync.config import SyncConfig  # noqa: E402
from rlm_env.train.sync.engine import TrainEngine  # noqa: E402
from rlm_env.train.sync.request_gate import ReplyDropped, RequestCut  # noqa: E402
from rlm_env.train.sync.sync_check import SyncError  # noqa: E402
from rlm_env.train.sync.weight_sync import DiskSync, make_sync  # noqa: E402
from tests.train.sync_stand_in import StandIn, differences  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]

ENDLESS = {"ignore_eos": True, "stop_token_ids": []}


def ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def test_new_weights_arrive_and_the_check_says_so(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync
) -> None:
    found = await sync.start(trainer, train_engine)
    assert found["sync_mean_abs"] < 1e-5  # measured: 2e-6
    for size in (0.02, 1e-5):  # a movement that shows in every reply, and one far below the tolerance
        trainer.step(size)
        found = await sync.publish(trainer.version)
        assert found["sync_mean_abs"] < 1e-5
        assert found["sync_change_share"] == pytest.approx(1, abs=0.02)
        assert {f"sync_seconds_{part}" for part in ("export", "score", "pause", "load", "verify")} < found.keys()
    assert train_engine.version == trainer.version == 2
    assert train_engine.gate.seconds_closed > 0
    check = await differences(sync)
    assert check.mean_abs < 1e-5
    assert check.change is None  # nothing has moved
    assert [path.name for path in sync.folder.iterdir()] == ["v000002"]
    assert train_engine.served == sync.folder / "v000002"
    await sync.publish(trainer.version)  # once more, as after a resume
    assert train_engine.served.exists()


async def test_the_learner_is_trained_on_while_its_weights_are_on_their_way(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync
) -> None:
    await sync.start(trainer, train_engine)
    for _ in range(2):
        trainer.step()
        version, learner_free = trainer.version, asyncio.Event()
        publishing = asyncio.create_task(sync.publish(version, learner_free))
        await learner_free.wait()
        assert not publishing.done()
        trainer.step()
        found = await publishing
        assert found["sync_mean_abs"] < 1e-5  # the version that was exported
        assert train_engine.version == version < trainer.version


async def test_each_tensor_of_the_model_arrives(train_engine: TrainEngine, trainer: StandIn, sync: DiskSync) -> None:
    """The tied vocabulary head among them, which vLLM's own reload leaves as it was on CPU."""
    await sync.start(trainer, train_engine)
    for name, parameter in trainer.model.named_parameters():
        if "layers." in name and "layers.2." not in name:
            continue
        with torch.no_grad():
            parameter *= 1.2
        trainer.version += 1
        assert (await sync.publish(trainer.version))["sync_mean_abs"] < 1e-5, name


async def test_tied_head_that_keeps_its_old_weights_is_noticed(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync.start(trainer, train_engine)
    monkeypatch.setattr(train_engine._server, "repacks_heads", False)  # as vLLM does it by itself
    trainer.step()
    learner_free = asyncio.Event()
    with pytest.raises(SyncError, match="serves other weights"):
        await sync.publish(trainer.version, learner_free)
    assert learner_free.is_set()


async def test_engine_that_takes_no_weights_is_found_out_before_the_first_rollout(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync.start(trainer, train_engine)  # so that it serves what the trainer has, as at the start of a run
    monkeypatch.setattr(VLLMServer, "reload_weights", lambda server, _: server.reset_prefix_cache())
    with pytest.raises(SyncError, match="updates do not reach it") as caught:
        await sync.start(trainer, train_engine)
    assert str(train_engine.log_path) in str(caught.value)


@pytest.mark.parametrize("size", [0.02, 1e-5])
async def test_update_without_a_reload_is_noticed(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync, monkeypatch: pytest.MonkeyPatch, size: float
) -> None:
    """Also where the step was so small that old weights are within the tolerance."""
    await sync.start(trainer, train_engine)
    trainer.step()
    await sync.publish(trainer.version)
    monkeypatch.setattr(VLLMServer, "reload_weights", lambda server, _: server.reset_prefix_cache())
    trainer.step(size)
    with pytest.raises(SyncError, match=r"made -?\d% of the trainer's last change"):
        await sync.publish(trainer.version)


@pytest.mark.parametrize("at_start", [True, False])
async def test_stale_prefix_cache_is_noticed(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync, monkeypatch: pytest.MonkeyPatch, at_start: bool
) -> None:
    await sync.start(trainer, train_engine)
    monkeypatch.setattr(VLLMServer, "reset_prefix_cache", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(VLLMServer, "pause", lambda server: server._call("/pause?mode=wait&clear_cache=false"))
    trainer.step()
    with pytest.raises(SyncError, match="prefix cache holds keys and values of earlier weights"):
        await (sync.start(trainer, train_engine) if at_start else sync.publish(trainer.version))


@pytest.mark.parametrize("size", [0.02, 1e-5])
async def test_update_of_half_the_tensors_is_noticed(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync, size: float
) -> None:
    await sync.start(trainer, train_engine)
    export = trainer.export

    def half(folder: Path) -> None:
        export(folder)
        new, old = load_file(folder / "model.safetensors"), load_file(train_engine.served / "model.safetensors")
        mixed = {name: (old if index % 2 else new)[name] for index, name in enumerate(sorted(new))}
        save_file(mixed, folder / "model.safetensors", {"format": "pt"})

    trainer.export = half
    trainer.step(size)
    with pytest.raises(SyncError, match=r"some of them|serves other weights"):
        await sync.publish(trainer.version)


async def test_refusal_of_the_engine(train_engine: TrainEngine, trainer: StandIn, sync: DiskSync) -> None:
    await sync.start(trainer, train_engine)
    served, export = train_engine.served, trainer.export

    def without_weights(folder: Path) -> None:
        export(folder)
        (folder / "model.safetensors").write_bytes(b"nothing")

    trainer.export = without_weights
    with pytest.raises(SyncError, match="did not take version 7"):
        await sync.publish(7)
    assert train_engine.served == served
    assert served.exists()
    with pytest.raises(ReplyDropped):  # vLLM 0.30 has let go of the old weights
        await train_engine.llm.complete(ask("Count."), None, Sampling(max_tokens=4))
    await train_engine.restart()
    assert (await train_engine.llm.complete(ask("Count."), None, Sampling(max_tokens=4))).completion_ids


async def test_conversation_goes_on_with_the_new_weights(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync
) -> None:
    """Updates while 16 conversations are in flight: each token is of the state of the weights that is on record, on
    whatever that makes of the conversation so far, and a turn that begins after an update is of the new ones."""
    await sync.start(trainer, train_engine)
    sampling = Sampling(max_tokens=24, temperature=1.0, extra=ENDLESS)
    turns: list[tuple[Any, int, int]] = []
    states = [{name: value.clone() for name, value in trainer.model.state_dict().items()}]

    async def converse(number: int) -> None:
        messages = ask(f"Count the lines of part {number}.")
        for turn in range(6):
            before = train_engine.version
            completion = await train_engine.llm.complete(messages, None, sampling)
            turns.append((completion, before, train_engine.version))
            messages = [*messages, completion.message(), {"role": "user", "content": f"output {turn}"}]

    async def update() -> None:
        for _ in range(3):
            await asyncio.sleep(0.3)
            trainer.step()
            states.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
            await sync.publish(trainer.version)

    await asyncio.gather(update(), *(converse(number) for number in range(16)))
    for completion, before, after in turns:
        assert before <= completion.weight_versions[0][1] <= completion.weight_versions[-1][1] <= after
        assert gap_to_record(trainer, states, completion) < 1e-3
    assert len(turns) == 96
    assert len({version for completion, *_ in turns for _, version in completion.weight_versions}) >= 2
    assert any(len(completion.weight_versions) > 1 for completion, *_ in turns)


def gap_to_record(trainer: StandIn, states: list[dict[str, Any]], completion: Completion) -> float:
    """Largest difference of the log-probabilities of a reply to those of the weights that are on record for them."""
    prompt, sampled = completion.prompt_ids, completion.completion_ids
    sample = Sample(prompt + sampled, [False] * len(prompt) + [True] * len(sampled), [0.0] * len(prompt + sampled), "")
    gaps = []
    starts = [start for start, _ in completion.weight_versions]
    for (start, version), end in zip(completion.weight_versions, [*starts[1:], len(sampled)], strict=True):
        trainer.model.load_state_dict(states[version])
        (expected,) = trainer.score([sample])
        gaps += [abs(a - b) for a, b in zip(expected[start:end], completion.logprobs[start:end], strict=True)]
    trainer.model.load_state_dict(states[-1])
    return max(gaps)


async def test_a_long_request_loses_no_token_to_updates(
    train_engine: TrainEngine, trainer: StandIn, sync: DiskSync
) -> None:
    """Two updates while it is in flight: 900 tokens, each by the weights that the record names, and none cut off."""
    await sync.start(trainer, train_engine)
    states = [{name: value.clone() for name, value in trainer.model.state_dict().items()}]
    long = Request(ask("Count."), sampling=Sampling(max_tokens=900, temperature=1.0, extra=ENDLESS))
    batch = asyncio.create_task(train_engine.llm.complete_many([long] * 8))
    for _ in range(2):
        await asyncio.sleep(0.2)
        trainer.step()
        states.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        found = await sync.publish(trainer.version)
        assert (found["sync_requests_kept"], found["sync_requests_cut"]) == (8, 0)
        assert found["sync_mean_abs"] < 1e-5
    for reply in await batch:
        assert len(reply.completion_ids) == 900
        assert [version for _, version in reply.weight_versions] == [0, 1, 2]
        assert gap_to_record(trainer, states, reply) < 1e-3


async def test_slow_requests_are_cut_off_and_the_update_goes_on(
    train_engine: TrainEngine, trainer: StandIn, tmp_path: Path
) -> None:
    sync = make_sync(SyncConfig(in_flight="drain", drain_seconds=0.2), tmp_path / "weights", "float32")
    await sync.start(trainer, train_engine)
    slow = Request(ask("Count."), sampling=Sampling(max_tokens=900, temperature=1.0, extra=ENDLESS))
    batch = asyncio.create_task(train_engine.llm.complete_many([slow] * 32))
    await asyncio.sleep(0.5)
    trainer.step()
    found = await sync.publish(trainer.version)
    assert found["sync_mean_abs"] < 1e-5
    assert found["sync_cached_mean_abs"] < 1e-5
    assert all(isinstance(answer, RequestCut) for answer in await batch)
    assert (await train_engine.llm.complete(ask("Count."), None, Sampling(max_tokens=4))).completion_ids


async def test_the_learner_itself(train_engine: TrainEngine, tiny_model_path: Path, sync: DiskSync) -> None:
    from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
    from rlm_env.train.learner.learner import Learner

    config = ModelConfig(dtype="float32", pack_tokens=2048, device="cpu")
    learner = Learner(tiny_model_path, config, OptimizerConfig(lr=1e-4), LossConfig(), total_steps=2)
    await sync.start(learner, train_engine)
    ids = train_engine.policy.tokens.prompt(ask("Count the lines."), None).ids
    learner.step([Sample(ids, [False] + [True] * (len(ids) - 1), [-1.0] * len(ids), "r", advantage=1.0)])
    found = await sync.publish(learner.version)
    assert found["sync_mean_abs"] < 1e-5
    assert found["sync_change_share"] == pytest.approx(1, abs=0.02)
