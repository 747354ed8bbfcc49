"""A disk that is full, under what torch and safetensors really raise then: the run ends in words, and what was written
before stays. Here no file can grow beyond a limit of the kernel, which fails as a write to a full disk does."""

import contextlib
import resource
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlm_env.runs.errors import ConfigError, RunStopped  # noqa: E402
from rlm_env.train.learner.checkpoint import Checkpoints  # noqa: E402
from rlm_env.train.learner.config import LoraConfig, LossConfig, ModelConfig, OptimizerConfig  # noqa: E402
from rlm_env.train.learner.disk import torch_disk_errors  # noqa: E402
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.sample_files import write_samples  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.report.tracking import TensorboardConfig, TensorboardTracker  # noqa: E402
from tests.packages import needs  # noqa: E402

needs("peft")

SAMPLES = [Sample([1, 2, 3], [False, True, True], [0.0, -4.0, -4.0], "r", advantage=1.0)] * 200
LIMITS = (10, 2_000, 20_000)
"""Bytes: nothing, a config, and a part of the weights can be written."""


@contextlib.contextmanager
def full_disk(limit):
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.fixture(scope="module", params=[None, LoraConfig(rank=16)], ids=["full", "lora"])
def learner(make_qwen3, tmp_path_factory, request):
    path = tmp_path_factory.mktemp("model")
    make_qwen3().save_pretrained(path)
    settings = ModelConfig(dtype="float32", device="cpu", pack_tokens=200, threads=1, lora=request.param)
    found = Learner(path, settings, OptimizerConfig(), LossConfig(), 5)
    found.step(SAMPLES[:2])
    return found


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_cannot_be_written_ends_the_run_and_leaves_what_was_there(learner, tmp_path):
    writers = {
        "checkpoint": lambda: Checkpoints(tmp_path / "checkpoints", 2).save(1, learner, {"step": 1}),
        "model": lambda: learner.export(tmp_path / "model"),
        "samples": lambda: write_samples(tmp_path / "samples", 1, SAMPLES),
    }
    if learner.config.lora is not None:
        writers["adapter"] = lambda: learner.export_adapter(tmp_path / "adapter")
    for write in writers.values():
        write()
    before = contents(tmp_path)
    for name, write in writers.items():
        for limit in LIMITS:
            with pytest.raises(RunStopped, match=rf"{name}.*: File too large \(writing") as stop, full_disk(limit):
                write()
            assert (stop.value.status, stop.value.exit_code) == ("disk error", 1)
            assert contents(tmp_path) == before


def test_a_checkpoint_that_cannot_be_read_is_damaged(learner, tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    path = checkpoints.save(1, learner, {})
    (tensors,) = (path / "tensors").glob("*.distcp")
    tensors.unlink()
    tensors.symlink_to("/proc/self/mem")  # reading it fails with EIO
    with pytest.raises(OSError, match="Input/output error"):
        learner.load(path)
    with pytest.raises(ConfigError, match=r"no checkpoint is left to go on from: .*cannot be read"):
        checkpoints.restore(learner, lambda _: None)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), KeyboardInterrupt(), OSError(28, "full")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as raised, torch_disk_errors():
        raise error
    assert raised.value is error


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_no_trained_model(learner, tmp_path, value):
    parameter = next(p for _, p in learner.model.named_parameters() if p.requires_grad)
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.view(-1)[-1] = value
        with pytest.raises(RunStopped, match=r"1 of \d+ weights are not finite after step 1 .*optimizer\.lr") as stop:
            learner.export(tmp_path / "model")
        assert stop.value.status == "weights not finite"
        if learner.config.lora is not None:
            with pytest.raises(RunStopped, match=r"1 of \d+ weights are not finite after step 1 "):
                learner.export_adapter(tmp_path / "adapter")
        assert not list(tmp_path.iterdir())
    finally:
        with torch.no_grad():
            parameter.copy_(kept)
    learner.export(tmp_path / "model")


def test_tensorboard_on_a_full_disk_ends_the_run_in_words(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # its thread, which writes, dies of the error
    tracker = TensorboardTracker(tmp_path, TensorboardConfig())
    tracker.log({"step": 1, "loss": 0.5})
    (events,) = (tmp_path / "tensorboard").iterdir()
    with full_disk(events.stat().st_size):
        with pytest.raises(RunStopped, match=r"tensorboard: File too large \(logging metrics\)"):
            tracker.log({"step": 2, "loss": 0.5})
        tracker.close()
