"""Weights from the trainer's memory into a vLLM's, by vLLM's own weight transfer: CUDA IPC or NCCL.

vLLM's trainer classes make the handshake and move the tensors, and its routes take them; here they are given what they
need. IPC is for an engine on the trainer's own GPUs, NCCL for one on others. **Neither has been run on a GPU**: the
tests compare names, fields and the order of calls with the installed vLLM. Whether the weights arrived is checked as
after any other update (`weight_sync.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from rlm_env.llm.vllm.control import CONTROL_TIMEOUT
from rlm_env.train.learner import distributed
from rlm_env.train.sync.canary import shifted
from rlm_env.train.sync.config import METHODS_OF_VLLM

if TYPE_CHECKING:
    from torch import Tensor

    from rlm_env.train.learner.weight_stream import WeightInfo, WeightStream


def engine_arguments(method: str | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Arguments and environment variables with which a vLLM must be started to take weights by `method`; neither for
    any other. IPC handles travel as pickles, which vLLM must be told to read; it listens on 127.0.0.1 alone."""
    if method not in METHODS_OF_VLLM:
        return (), {}
    env = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"} if method == "ipc" else {}
    return ("--weight-transfer-config", f'{{"backend": "{method}"}}'), env


class TransferStuck(Exception):
    """A transfer did not end in time."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How one start of one engine gets weights. Called with a stream, on every process of the trainer, it sends it.

    The first call makes the connection, which later ones use. Raises TransferStuck where the engine neither takes the
    weights nor refuses them within `CONTROL_TIMEOUT`, and what vLLM's classes and `requests` raise.
    """

    method: str
    root_url: str
    """Of the engine, without `/v1`."""
    start: int
    """Of the engine: a new start needs a new connection."""
    workers: int = 1
    """Processes of the engine that hold weights."""
    address: str = "127.0.0.1"
    """Of the trainer's first process, as the engine reaches it; for NCCL."""
    port: int = 0
    """Free at that address."""
    canary: bool = False
    """Send other values instead."""

    def __call__(self, stream: WeightStream) -> None:
        try:
            _within(CONTROL_TIMEOUT, partial(self._send, stream))
        except BaseException:
            _SENDERS.pop(self.root_url, None)  # what is left of a connection that failed is unusable
            raise

    def _send(self, stream: WeightStream) -> None:
        sender = _open_sender(self)
        sender.source.stream = _Shifted(stream) if self.canary else stream
        sender.engine.send_weights()

    def init_info(self) -> Any:
        """vLLM's description of this process's side. The first process sends, the others help to gather."""
        if self.method == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=distributed.rank(), packed=True)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        return NCCLTrainerInitInfo(
            rank=distributed.rank(),
            master_address=self.address,
            master_port=self.port,
            world_size=1 + self.workers,
            packed=True,
        )


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Runs `work` in a thread of its own, on this thread's device, and raises what it raises.

    A broadcast ends only when all have taken part, so one whose engine hangs never does. Nor can it be broken off:
    TransferStuck is raised, and the thread stays behind until the process ends.
    """
    import torch

    device = torch.accelerator.current_device_index() if torch.accelerator.is_available() else None
    ended: Future[None] = Future()

    def run() -> None:
        try:
            if device is not None:
                torch.accelerator.set_device_index(device)
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=run, name="weight-transfer", daemon=True).start()
    if not wait([ended], seconds).done:
        raise TransferStuck(f"it has not ended within {seconds:g} s")
    ended.result()


class _Source:
    """What vLLM's class reads at each transfer; its stream is exchanged between them."""

    stream: WeightStream | _Shifted

    def metadata(self) -> Sequence[WeightInfo]:
        return self.stream.metadata()

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self.stream)


@dataclass(frozen=True, slots=True)
class _Shifted:
    """A stream with the values of canary weights."""

    stream: WeightStream

    def metadata(self) -> Sequence[WeightInfo]:
        return self.stream.metadata()

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, shifted(weight)) for name, weight in self.stream)


@dataclass(frozen=True, slots=True)
class _Sender:
    """vLLM's side of a connection in this process."""

    start: int
    engine: Any
    source: _Source


_SENDERS: dict[str, _Sender] = {}
"""By the engine's address. Of the process, not of an object: a call reaches the trainer's other processes as a copy."""


def _open_sender(transfer: Transfer) -> _Sender:
    """The connection to this start of the engine."""
    found = _SENDERS.get(transfer.root_url)
    if found is not None and found.start == transfer.start:
        return found
    from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient, WeightTransferTrainerFactory

    if found is not None:
        found.engine.shutdown()
    source: Any = _Source()
    client = HTTPVLLMWeightSyncClient(transfer.root_url, timeout=CONTROL_TIMEOUT)
    engine = WeightTransferTrainerFactory.trainer_init(transfer.init_info(), client=client, source=source)
    _SENDERS[transfer.root_url] = _Sender(transfer.start, engine, source)
    return _SENDERS[transfer.root_url]
