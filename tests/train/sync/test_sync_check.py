"""What the check of a weight update makes of the numbers, and the canary it begins with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from rlm_env.train.sync.canary import write_canary_weights  # noqa: E402
from rlm_env.train.sync.config import SyncConfig  # noqa: E402
from rlm_env.train.sync.sync_check import (  # noqa: E402
    BothLogprobs,
    FixedConversation,
    Logprobs,
    SyncCheck,
    SyncError,
    compare,
    require_agreement,
)
from rlm_env.train.sync.weight_sync import DiskSync, LoraSync, make_sync  # noqa: E402

SIZE = 600


def noise(size: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0, size) for _ in range(SIZE)]


def plus(*parts: list[float]) -> list[float]:
    return [sum(values) for values in zip(*parts, strict=True)]


def logprobs(values: list[float]) -> Logprobs:
    return Logprobs(values, values[-16:])


def both(engine: list[float], trainer: list[float]) -> BothLogprobs:
    return BothLogprobs(logprobs(engine), logprobs(trainer))


def check_of(share: float, step: float, rounding: float) -> SyncCheck:
    """Where the engine made a share of the trainer's step."""
    old, move = noise(3, 1), noise(step, 2)
    before = both(plus(old, noise(rounding, 3)), old)
    engine = plus(old, [share * value for value in move], noise(rounding, 4))
    return compare(both(engine, plus(old, move)), before)


@pytest.mark.parametrize(("step", "rounding"), [(1.0, 1e-6), (1e-5, 1e-6), (1.0, 0.05)])
def test_engine_that_followed_passes_and_one_that_did_not_does_not(step: float, rounding: float) -> None:
    require_agreement(check_of(1.0, step, rounding), tolerance=0.05, version=1)
    for share in (0.0, 0.5):
        with pytest.raises(SyncError, match="version 1"):
            require_agreement(check_of(share, step, rounding), tolerance=0.05, version=1)


def test_a_change_below_rounding_says_nothing() -> None:
    check = check_of(0.0, 1e-3, 0.03)
    assert check.change is None
    require_agreement(check, tolerance=0.05, version=1)
    still = both(noise(3, 1), noise(3, 1))
    assert compare(still, still).change is None


def test_numbers_that_are_not_numbers_do_not_pass() -> None:
    values = noise(3, 1)
    broken = Logprobs([float("nan"), *values[1:]], values[-16:])
    with pytest.raises(SyncError, match="serves other weights"):
        require_agreement(compare(BothLogprobs(broken, logprobs(values))), 0.05, 1)


def test_stale_cache_is_told_from_old_weights() -> None:
    values = noise(3, 1)
    stale = Logprobs(values, [value + 1 for value in values[-16:]])
    with pytest.raises(SyncError, match="prefix cache"):
        require_agreement(compare(BothLogprobs(stale, logprobs(values))), 0.05, 1)


def test_the_conversation_as_a_sample() -> None:
    conversation = FixedConversation(list(range(40)), [False] * 4 + [True] * 12 + [False] * 4 + [True] * 20)
    assert conversation.as_sample.trained_tokens == 32
    found = conversation.trainer_logprobs([float(value) for value in range(32)])
    assert found.cached == [float(value) for value in range(16, 32)]
    with pytest.raises(ValueError, match="expected 32"):
        conversation.trainer_logprobs([0.0] * 40)
    assert FixedConversation([1, 2, 3], [False, True, True]).trainer_logprobs([-1.0, -2.0]).cached == [-1.0, -2.0]
    with pytest.raises(ValueError, match="end with tokens that were sampled"):
        FixedConversation([1, 2], [False, False])


def test_canary_weights_differs_in_every_tensor_of_one_file(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "canary"
    source.mkdir()
    tensors = {"a": torch.arange(6.0).view(3, 2), "zero": torch.zeros(4, 2), "half": torch.rand(8).bfloat16()}
    save_file(tensors, source / "model-00001.safetensors", {"format": "pt"})
    save_file({"b": torch.rand(3)}, source / "model-00002.safetensors")
    (source / "config.json").write_text("{}")
    write_canary_weights(source, folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in source.iterdir()}
    found = load_file(folder / "model-00001.safetensors")
    for name, tensor in load_file(source / "model-00001.safetensors").items():
        assert torch.equal(tensor, tensors[name])  # the source is as it was
        assert found[name].dtype == tensor.dtype
        assert not torch.equal(found[name], tensor)
    assert (folder / "model-00002.safetensors").samefile(source / "model-00002.safetensors")
    with pytest.raises(ValueError, match="no weights"):
        write_canary_weights(folder.parent, tmp_path / "other")


def test_methods(tmp_path: Path) -> None:
    assert isinstance(make_sync(SyncConfig(), tmp_path, "float32"), DiskSync)
    assert isinstance(make_sync(SyncConfig(method="lora"), tmp_path, "float32"), LoraSync)
