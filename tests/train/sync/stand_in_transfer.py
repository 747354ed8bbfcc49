"""A vLLM's weight transfer without a GPU: its routes, which refuse what vLLM refuses, and tensors by reference.

vLLM's own trainer classes drive it; only what touches a GPU is exchanged (`by_reference`). `test_transfer_contract.py`
compares fields and refusals with the installed vLLM.
"""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from aiohttp import web

from tests.train.stand_in_vllm import StandInVLLM

FIELDS: dict[str, dict[str, set[str]]] = {
    "nccl": {
        "init": {"master_address", "master_port", "rank_offset", "world_size", "nccl_unique_id_b64", "packed"}
        | {"packed_buffer_size_bytes", "packed_num_buffers"},
        "update": {"names", "dtype_names", "shapes"},
    },
    "ipc": {
        "init": {"packed"},
        "update": {"names", "dtype_names", "shapes", "ipc_handles", "ipc_handles_pickled", "tensor_sizes"},
    },
}
REQUIRED = {"nccl": {"rank_offset", "world_size"}, "ipc": set()}
UPDATE_REQUIRED = {"names", "dtype_names", "shapes"}
SENT: dict[int, torch.Tensor] = {}
"""Tensors on their way, by id: in place of GPU memory."""


class TransferStandIn(StandInVLLM):
    """A stand-in that also takes weights by `method`. `calls`: the routes in order."""

    def __init__(self, model: Path, **options: Any) -> None:
        super().__init__(model, **options)
        arguments = options["extra_args"]
        self.method = "ipc" if '{"backend": "ipc"}' in arguments else "nccl"
        assert "--weight-transfer-config" in arguments
        assert (options["env"].get("VLLM_ALLOW_INSECURE_SERIALIZATION") == "1") == (self.method == "ipc")
        self.calls: list[str] = []
        self.init: dict[str, Any] | None = None
        self.updating = False

    def _routes(self, app: web.Application) -> None:
        super()._routes(app)
        for name in ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update"):
            app.router.add_post(f"/{name}", self._transfer)

    async def _transfer(self, request: web.Request) -> web.Response:
        route = request.path.removeprefix("/")
        self.calls.append(route)
        body = await request.json() if request.can_read_body else {}
        try:
            getattr(self, f"_{route}")(body)
        except KeyError as error:
            return web.Response(status=400, text=f"Missing {error} in request body")
        except (RuntimeError, ValueError, TypeError) as error:
            return web.Response(status=500, text=str(error))
        return web.json_response({"message": "done"})

    def _init_weight_transfer_engine(self, body: dict[str, Any]) -> None:
        init = body["init_info"]
        _check(init, FIELDS[self.method]["init"], REQUIRED[self.method])
        self.init = init

    def _start_weight_update(self, _: dict[str, Any]) -> None:
        if self.updating:
            raise RuntimeError("start_weight_update called while a weight update is already active")
        self.updating, self.received = True, {}

    def _update_weights(self, body: dict[str, Any]) -> None:
        update = body["update_info"]
        if not self.updating:
            raise RuntimeError("start_weight_update must be called before update_weights.")
        _check(update, FIELDS[self.method]["update"], UPDATE_REQUIRED)
        if not len(update["names"]) == len(update["dtype_names"]) == len(update["shapes"]):
            raise ValueError("names, dtype_names and shapes should be of the same size")
        if self.method == "ipc":
            if update.get("ipc_handles_pickled") is None:
                raise ValueError("Either `ipc_handles` or `ipc_handles_pickled` must be provided")
            if self.init is None or (self.init["packed"] and update.get("tensor_sizes") is None):
                raise ValueError("`tensor_sizes` is required when packed=True")
            tensors = pickle.loads(base64.b64decode(update["ipc_handles_pickled"]))["GPU-0"]
            tensors = [SENT.pop(key) for key in tensors]
        else:
            if self.init is None:
                raise RuntimeError("NCCL weight transfer not initialized. Call init_transfer_engine() first.")
            tensors = [None] * len(update["names"])  # they come by broadcast
        for name, dtype, shape, tensor in zip(
            update["names"], update["dtype_names"], update["shapes"], tensors, strict=True
        ):
            if tensor is not None:
                assert (str(tensor.dtype), list(tensor.shape)) == (f"torch.{dtype}", shape)
            self.received[name] = tensor

    def _finish_weight_update(self, _: dict[str, Any]) -> None:
        if not self.updating:
            raise RuntimeError("finish_weight_update called without a matching start_weight_update.")
        self.updating = False
        self.received = {name: SENT.pop(name, tensor) for name, tensor in self.received.items()}
        missing = self.weights.load_state_dict(self.received, strict=False).missing_keys
        assert set(missing) <= {"lm_head.weight"}  # which is the embedding

    async def world_size(self) -> int:
        return 1

    async def reset_prefix_cache(self) -> None:
        self._require_life()


def _check(given: dict[str, Any], known: set[str], required: set[str]) -> None:
    if foreign := given.keys() - known:
        raise ValueError(f"got an unexpected keyword argument {sorted(foreign)[0]!r}")
    if missing := required - given.keys():
        raise ValueError(f"missing required argument: {sorted(missing)[0]!r}")


def by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanges what touches a GPU in vLLM's trainer classes: the NCCL group, the broadcast, IPC handles."""
    from vllm.distributed.weight_transfer import ipc_engine, nccl_engine

    def broadcast(iterator: Any, **_: Any) -> None:
        for name, tensor in iterator:
            SENT[name] = tensor.clone()

    def handles(iterator: Any, post_iter_func: Any, **_: Any) -> Any:
        pairs = [(pair[0], post_iter_func(pair).clone()) for pair in iterator]
        for start in range(0, len(pairs), 5):
            chunk = pairs[start : start + 5]
            SENT.update({id(tensor): tensor for _, tensor in chunk})
            yield SimpleNamespace(
                names=[name for name, _ in chunk],
                dtype_names=[str(tensor.dtype).removeprefix("torch.") for _, tensor in chunk],
                shapes=[list(tensor.shape) for _, tensor in chunk],
                tensor_sizes=[tensor.nbytes for _, tensor in chunk],
                ipc_handle={"GPU-0": [id(tensor) for _, tensor in chunk]},
            )

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: SimpleNamespace(info=info))
    monkeypatch.setattr(nccl_engine, "packed_nccl_broadcast_producer", broadcast)
    monkeypatch.setattr(ipc_engine, "packed_ipc_producer", handles)
    monkeypatch.setattr(ipc_engine.IPCTrainerWeightTransferEngine, "_post_send_sync", staticmethod(lambda: None))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="GPU-0"))
