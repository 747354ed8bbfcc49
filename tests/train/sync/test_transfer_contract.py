"""What we send a vLLM, and what the stand-in takes and refuses, is what the installed vLLM has, takes and refuses."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("vllm")

from vllm.distributed.weight_transfer import (  # noqa: E402
    WeightTransferEngineFactory,
    WeightTransferTrainerFactory,
    base,
    ipc_engine,
    nccl_engine,
)
from vllm.v1.worker.gpu_worker import Worker  # noqa: E402

from rlm_env.train.learner.weight_stream import WeightInfo, WeightStream  # noqa: E402
from rlm_env.train.sync.config import METHODS_OF_VLLM  # noqa: E402
from rlm_env.train.sync.transfer import Transfer, engine_arguments  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402
from tests.train.sync.stand_in_transfer import FIELDS, REQUIRED, TransferStandIn  # noqa: E402
from tests.train.sync_stand_in import StandIn  # noqa: E402

pytestmark = pytest.mark.slow  # importing vLLM's worker takes five seconds of a core
INFOS = {
    "nccl": (nccl_engine.NCCLWeightTransferInitInfo, nccl_engine.NCCLWeightTransferUpdateInfo),
    "ipc": (ipc_engine.IPCWeightTransferInitInfo, ipc_engine.IPCWeightTransferUpdateInfo),
}


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def required(kind: type) -> set[str]:
    missing = dataclasses.MISSING
    return {f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing}


def test_the_routes_are_there() -> None:
    from vllm.entrypoints.serve.dev.rlhf.api_router import router

    there = {(method, route.path) for route in router.routes for method in route.methods}
    posts = ("pause", "resume", "init_weight_transfer_engine", "start_weight_update", "update_weights")
    assert {("POST", f"/{name}") for name in (*posts, "finish_weight_update")} <= there
    assert {("GET", "/is_paused"), ("GET", "/get_world_size")} <= there
    from vllm.v1.engine import PauseMode

    assert {"keep", "abort"} <= set(get_args(PauseMode))


@pytest.mark.parametrize("method", METHODS_OF_VLLM)
def test_the_stand_in_has_vllms_fields(method: str) -> None:
    init, update = INFOS[method]
    assert FIELDS[method] == {"init": fields(init), "update": fields(update)}
    assert REQUIRED[method] == required(init)
    assert required(update) == {"names", "dtype_names", "shapes"}


@pytest.mark.parametrize("method", METHODS_OF_VLLM)
def test_our_side_is_made_of_vllms_own_classes(method: str) -> None:
    transfer = Transfer(method, "http://127.0.0.1:1", 0, workers=2, port=7)
    assert pickle.loads(pickle.dumps(transfer)) == transfer  # as the trainer's other processes get it
    found = transfer.init_info()
    trainer = WeightTransferTrainerFactory._registry[found.backend]()
    assert found.backend == method
    assert isinstance(found, trainer.init_info_cls)
    assert found.is_sender
    assert list(inspect.signature(trainer.trainer_init).parameters) == ["init_info", "client", "source"]
    arguments, env = engine_arguments(method)
    assert arguments == ("--weight-transfer-config", f'{{"backend": "{method}"}}')
    assert method in WeightTransferEngineFactory._registry
    if method == "ipc":
        from vllm import envs

        assert set(env) <= set(envs.environment_variables)
    else:
        assert (found.world_size, found.master_port) == (3, 7)


BAD: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("nccl", [("init", {"rank_offset": 1, "world_size": 2, "colour": "red"})]),
    ("nccl", [("init", {"master_address": "a", "master_port": 1, "world_size": 2})]),
    ("ipc", [("init", {"packed": True, "rank_offset": 1})]),
    ("ipc", [("finish", {})]),
    ("ipc", [("update", {"names": [], "dtype_names": [], "shapes": []})]),
    ("ipc", [("start", {}), ("start", {})]),
    ("ipc", [("start", {}), ("update", {"names": [], "dtype_names": [], "shapes": []})]),
    ("nccl", [("start", {}), ("update", {"names": ["a"], "dtype_names": [], "shapes": []})]),
    ("nccl", [("start", {}), ("update", {"names": ["a"], "dtype_names": ["float32"], "shapes": [[1]]})]),
    ("nccl", [("start", {}), ("update", {"names": ["a"], "dtype_names": ["float32"]})]),
]


def vllm_worker(method: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The methods of vLLM's worker, with its own transfer engine, around no model."""
    reload = "vllm.model_executor.model_loader.reload"
    monkeypatch.setattr(f"{reload}.initialize_layerwise_reload", lambda *_: None)
    kind = WeightTransferEngineFactory._registry[method]()
    config = SimpleNamespace(parallel_config=None, model_config=None)
    engine = kind(SimpleNamespace(backend=method), config, torch.device("cpu"), torch.nn.Module())
    worker = SimpleNamespace(weight_transfer_engine=engine, _weight_update_active=False, vllm_config=None)
    for name in ("_check_weight_transfer_engine", "_start_weight_update"):
        setattr(worker, name, getattr(Worker, name).__get__(worker))
    return worker


@pytest.mark.parametrize(("method", "calls"), BAD)
def test_both_refuse_the_same(
    method: str, calls: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    monkeypatch.setattr("vllm.v1.worker.gpu_worker.set_current_vllm_config", lambda _: contextlib.nullcontext())
    worker = vllm_worker(method, monkeypatch)
    monkeypatch.setattr(TransferStandIn, "made", [], raising=False)
    arguments, env = engine_arguments(method)
    stand_in = TransferStandIn(Path(), log_path=None, extra_args=arguments, env=env)
    theirs = {
        "init": lambda body: Worker.init_weight_transfer_engine(worker, body),
        "start": lambda _: Worker.start_weight_update(worker),
        "update": lambda body: Worker.update_weights(worker, body),
        "finish": lambda _: Worker.finish_weight_update(worker),
    }
    ours = {
        "init": lambda body: stand_in._init_weight_transfer_engine({"init_info": body}),
        "start": stand_in._start_weight_update,
        "update": lambda body: stand_in._update_weights({"update_info": body}),
        "finish": stand_in._finish_weight_update,
    }
    *before, (last, body) = calls
    for name, given in before:
        theirs[name](given)
        ours[name](given)
    for refuse in (theirs, ours):
        with pytest.raises((RuntimeError, ValueError)):
            refuse[last](body)


@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": "all-linear"}])
def test_the_stream_is_what_vllm_expects_of_a_source(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    """The names and shapes of vLLM's fields; what is announced is what comes, by vLLM's own comparison; and these are
    the names and values of the exported folder."""
    if lora is not None:
        pytest.importorskip("peft")
    from safetensors.torch import load_file

    assert fields(base.ParamMeta) == {field.name for field in dataclasses.fields(WeightInfo)}
    trainer = StandIn(make_model(tmp_path / "model", hidden=32, layers=1), torch.bfloat16, lora)
    stream = WeightStream(trainer.model, lambda tensor: tensor.detach(), torch.bfloat16)
    checked = nccl_engine.NCCLTrainerWeightTransferEngine._checked_iter
    found = dict(checked(stream, stream.metadata()))
    assert dict(checked(stream, stream.metadata())).keys() == found.keys()  # anew
    model = trainer.model if lora is None else trainer.model.merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_the_counts_of_tokens_in_flight_are_read_from_fields_that_both_model_runners_have() -> None:
    """The worker's own runner on the CPU, the newer one on GPUs (compared by its source: it needs a GPU)."""
    from vllm.v1.worker.gpu import states
    from vllm.v1.worker.gpu_input_batch import CachedRequestState

    assert "output_token_ids" in fields(CachedRequestState)
    source = inspect.getsource(states.RequestState.__init__)
    assert all(f"self.{name}" in source for name in ("req_id_to_index", "prompt_len = UvaBackedTensor", "total_len"))
