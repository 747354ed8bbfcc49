"""Brings the trainer's weights into the running engine and proves that they arrived.

Whole weights go through a folder on disk or from memory to memory (`transfer.py`), an adapter through vLLM's runtime
LoRA loading. There is one engine, and it stands still while it loads; requests in flight go on afterwards, and no reply
passes before the weights that sampled it are verified. The comparison of log-probabilities is in `sync_check.py`.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.runs.files import disk_errors
from rlm_env.train.learner.disk import torch_disk_errors
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.weight_stream import WeightStream
from rlm_env.train.sync.canary import write_canary_weights
from rlm_env.train.sync.config import SyncConfig
from rlm_env.train.sync.engine import EngineGone, TrainEngine
from rlm_env.train.sync.sync_check import (
    TOLERANCES,
    BothLogprobs,
    FixedConversation,
    Logprobs,
    SyncCheck,
    SyncError,
    compare,
    require_agreement,
)
from rlm_env.train.sync.transfer import Transfer, TransferStuck

if TYPE_CHECKING:
    from rlm_env.llm.vllm.control import VLLMControl

CANARY = "canary"
NOT_RUN = (
    'sync.method = "{}" has not been run on a GPU yet: the weights are checked after every update, but watch the first '
    'ones; "disk" is the way that has been measured'
)
"""Said at the start of a run, with the method's name."""


class Publisher(Protocol):
    """The part of `Learner` that a sync uses."""

    @property
    def version(self) -> int: ...

    def score(self, samples: list[Sample]) -> Sequence[Sequence[float]]: ...

    def export(self, folder: Path) -> None: ...

    def export_adapter(self, folder: Path) -> None: ...

    def hand_over(self, take: Callable[[WeightStream], None]) -> None: ...


class WeightSync(ABC):
    """One way of bringing weights into an engine. `start` comes first, then a `publish` for each update.

    `config`: see `SyncConfig`. `folder`: where exports go; only the one that is served stays. `dtype`: the type of the
    trainer's forward pass.
    """

    frees_learner_early = True
    """Whether the learner may be trained on while the engine loads."""
    keeps_requests = True
    """Whether requests in flight may go on across an update; otherwise they end first."""

    def __init__(self, config: SyncConfig, folder: Path, dtype: str) -> None:
        self.config = config
        self.folder = folder
        self._dtype = dtype
        self._last_check: BothLogprobs | None = None
        self._expected: dict[Path, Logprobs] = {}
        """What the trainer answers with the weights in a folder: those that are served, and those that are loaded."""

    async def start(self, learner: Publisher, engine: TrainEngine) -> dict[str, float]:
        """Publishes the learner's weights as they are, before the first rollout. Else like `publish`.

        The engine may serve these weights already, so it is first given canary weights (`canary.py`), which must
        change its answers: an engine that ignores updates is found out before anything is sampled. One that takes
        only some of the tensors is found out at the first update.
        """
        self._learner = learner
        self._engine = engine
        self._last_check = None
        engine.prove = self._prove
        types = {self._dtype, engine.dtype}
        self.tolerance = self.config.check_tolerance or TOLERANCES["float32" if types == {"float32"} else "bfloat16"]
        shutil.rmtree(self.folder, ignore_errors=True)
        self._conversation = await FixedConversation.sample(engine)
        return await self._publish(learner.version, canary_first=True)

    async def publish(self, version: int, learner_free: asyncio.Event | None = None) -> dict[str, float]:
        """Serves the learner's weights as `version`, while rollouts are in flight, and verifies them before the
        first request goes on.

        `learner_free` is set as soon as the learner may be trained further: its weights are exported and its
        log-probabilities computed. It is set on errors too.

        Returns seconds by part (`sync_seconds_export`, `_score`, `_pause`, `_load`, `_verify`), the prompts in flight
        that went on under the new weights (`sync_requests_kept`), the requests that did not end in time where they
        have to (`sync_requests_cut`) and the result of the check (`sync_mean_abs`, `sync_max_abs`,
        `sync_cached_mean_abs`, `sync_change_share`). An engine that dies meanwhile is started again on the new
        weights if it is alone. Of several it gets them when it is back: then this raises EngineUnavailable, or
        returns {} where it was known to be away. Raises SyncError, and EngineUnavailable where it does not start.
        """
        try:
            return await self._publish(version, learner_free)
        finally:
            if learner_free is not None:
                learner_free.set()

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Exports the learner's weights in the form that `_load` reads."""

    @abstractmethod
    async def _load(self, folder: Path, version: int) -> None:
        """Makes the engine serve it, and forget what it cached."""

    async def _publish(
        self, version: int, learner_free: asyncio.Event | None = None, *, canary_first: bool = False
    ) -> dict[str, float]:
        """Export, score, stop the engine, load, let it go on, compare, let replies pass. Where canary weights are
        tried, nothing may be in flight. {} where the engine is away and gets them when it is back."""
        metrics: dict[str, float] = {}
        engine = self._engine
        folder = await self._prepare(version, metrics)
        if learner_free is not None and self.frees_learner_early:
            learner_free.set()
        if engine.away and not engine.alone:
            engine.owe(folder, version)
            await self._tidy()
            return {}
        may_keep = self.keeps_requests and engine.counts_tokens  # else nobody knows which weights sampled what
        keep = self.config.in_flight == "keep" and may_keep and not canary_first
        await self._fill_cache()
        cut, dropped = engine.gate.cut, engine.gate.dropped
        try:
            with engine.gate.on_trial():
                async with engine.frozen() if keep else engine.paused(self.config.drain_seconds) as seconds:
                    metrics["sync_seconds_pause"] = seconds
                    await self._exchange(folder, version, metrics, canary_first)
                with _timed(metrics, "verify"):
                    check = await self._check(self._expected[folder], version)
        except SyncError as error:
            await asyncio.sleep(0)  # replies that have waited for this are dropped now
            if lost := engine.gate.dropped - dropped:
                raise SyncError(f"{error}. Replies that were sampled since are dropped: {lost} so far") from error
            raise
        except EngineUnavailable:
            if not engine.alone:
                engine.owe(folder, version)
            raise
        metrics["sync_requests_kept"] = float(engine.kept if keep else 0)
        metrics["sync_requests_cut"] = float(engine.gate.cut - cut)
        shutil.rmtree(self.folder / CANARY, ignore_errors=True)
        await self._tidy()
        return metrics | _as_metrics(check)

    async def _prepare(self, version: int, metrics: dict[str, float]) -> Path:
        """Exports the learner's weights and notes what it answers with them. Returns their folder."""
        folder = self.folder / f"v{version:06d}"
        if folder in self._engine.needed:  # the engine's files must not change under it
            folder = folder.with_name(f"{folder.name}-again")
        with _timed(metrics, "export"):
            await asyncio.to_thread(self._write, folder)
        with _timed(metrics, "score"):
            expected = await self._trainer_logprobs()
        needed = self._engine.needed
        self._expected = {known: found for known, found in self._expected.items() if known in needed}
        self._expected[folder] = expected
        return folder

    async def _exchange(self, folder: Path, version: int, metrics: dict[str, float], canary_first: bool) -> None:
        """Loads a folder; other weights first where the engine is new."""
        restarts, expected = self._engine.restarts, self._expected[folder]
        if canary_first:
            await self._load_canary(folder, version, expected)
        with _timed(metrics, "load"):
            await self._replace(folder, version)
        if self._engine.restarts > restarts:  # whatever was in flight has failed
            await self._load_canary(folder, version, expected)
            await self._replace(folder, version)

    async def _tidy(self) -> None:
        """Removes exports that nobody needs any more."""
        needed = self._engine.needed
        for folder in [folder for folder in self.folder.glob("v*") if folder not in needed]:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _load_canary(self, folder: Path, version: int, expected: Logprobs) -> None:
        """Loads canary weights and requires that the engine's answers change."""
        try:
            await self._taken(self._load_others(folder, version), version)
            self._require_other_answers(await self._engine_logprobs(), expected)
        finally:
            if self._engine.served == self.folder / CANARY:
                self._engine.comes_back_on(folder)
        await self._fill_cache()

    async def _prove(self) -> None:
        """The same for an engine that was started again, before it answers anybody: it must take other weights, and
        then serve those that it was started on."""
        engine, folder = self._engine, self._engine.served
        expected = self._expected.get(folder)
        if expected is None:
            return
        try:
            await engine.try_on(await self._write_canary(folder, f"{CANARY}-{engine.restarts}"))
            self._require_other_answers(await self._conversation.engine_logprobs(engine), expected)
            await engine.try_on(folder)
            found = BothLogprobs(await self._conversation.engine_logprobs(engine), expected)
        except LLMError as error:
            raise EngineUnavailable(f"the engine was started again and does not take weights: {error}") from error
        finally:
            shutil.rmtree(self.folder / f"{CANARY}-{engine.restarts}", ignore_errors=True)
        require_agreement(compare(found), self.tolerance, engine.version)

    async def _write_canary(self, folder: Path, name: str = CANARY) -> Path:
        canary = self.folder / name
        shutil.rmtree(canary, ignore_errors=True)
        with disk_errors(canary, "writing canary weights"), torch_disk_errors():
            await asyncio.to_thread(write_canary_weights, folder, canary)
        return canary

    def _require_other_answers(self, answers: Logprobs, expected: Logprobs) -> None:
        """Raises SyncError where an engine with canary weights answers as with the right ones."""
        if compare(BothLogprobs(answers, expected)).mean_abs <= self.tolerance:
            raise SyncError(
                "the engine was given other weights and answers as before: updates do not reach it. Look into its "
                f"log ({self._engine.log_path}), and leave out of engine.extra_args what changes how weights are loaded"
            )

    async def _fill_cache(self) -> None:
        """So that a prefix cache that survives the change is found out. Not while the engine is paused."""
        with suppress(LLMError):  # of a dead engine, which is started again on the new weights
            await self._conversation.fill_cache(self._engine)

    async def _replace(self, folder: Path, version: int) -> None:
        """Makes the engine serve the weights in a folder."""
        await self._taken(self._load(folder, version), version)

    async def _load_others(self, folder: Path, version: int) -> None:
        """Makes the engine serve canary weights made of those in a folder."""
        await self._load(await self._write_canary(folder), version)

    async def _taken(self, loading: Coroutine[Any, Any, None], version: int) -> None:
        """Raises SyncError where a living engine refuses."""
        try:
            await loading
        except LLMError as error:
            if isinstance(error, EngineUnavailable):
                raise
            raise SyncError(f"the engine did not take version {version}: {error}") from error

    async def _trainer_logprobs(self) -> Logprobs:
        (logprobs,) = await asyncio.to_thread(self._learner.score, [self._conversation.as_sample])
        return self._conversation.trainer_logprobs(logprobs)

    async def _engine_logprobs(self) -> Logprobs:
        try:
            return await self._conversation.engine_logprobs(self._engine)
        except EngineUnavailable:
            if not self._engine.alone:
                raise
            await self._engine.restart()
            return await self._conversation.engine_logprobs(self._engine)

    async def _check(self, expected: Logprobs, version: int) -> SyncCheck:
        """Compares the engine's answers with the trainer's; SyncError where they differ."""
        answers = BothLogprobs(await self._engine_logprobs(), expected)
        check = compare(answers, self._last_check)
        require_agreement(check, self.tolerance, version)
        self._last_check = answers
        return check


class DiskSync(WeightSync):
    """Whole weights (with LoRA: merged) through a folder that vLLM reloads in place."""

    def _write(self, folder: Path) -> None:
        self._learner.export(folder)

    async def _load(self, folder: Path, version: int) -> None:
        await self._engine.load(folder, version)


class LoraSync(WeightSync):
    """The adapter alone, through vLLM's runtime LoRA loading; the engine needs `lora_rank`. Requests end first: the
    check asks for log-probabilities of a prompt, of which vLLM 0.30 with adapters dies if others are in the batch."""

    keeps_requests = False

    def _write(self, folder: Path) -> None:
        self._learner.export_adapter(folder)

    async def _load(self, folder: Path, version: int) -> None:
        await self._engine.load_adapter(folder, version)


class TransferSync(WeightSync):
    """Whole weights (with LoRA: merged) by CUDA IPC or NCCL. The learner is free when the engine has them. They are not
    on disk, so an engine that dies ends the run, which goes on with --resume."""

    frees_learner_early = False

    def _write(self, folder: Path) -> None:
        pass

    async def _load(self, folder: Path, version: int) -> None:
        await self._engine.receive(self._send, version)

    async def _load_others(self, folder: Path, version: int) -> None:
        await self._engine.receive(lambda server: self._send(server, canary=True), version)

    async def _prove(self) -> None:
        raise EngineGone(
            f'vLLM has died, and with sync.method = "{self.config.method}" its weights are not on disk: go on with '
            f"--resume. Its log: {self._engine.log_path}"
        )

    async def _send(self, server: VLLMControl, canary: bool = False) -> None:
        """Sends the learner's weights to the engine. Raises LLMError, and SyncError where the engine hangs in it."""
        transfer = Transfer(self.config.method, server.root_url, self._engine.restarts, canary=canary)
        if self.config.method == "nccl":
            workers, address = await server.world_size(), self.config.address
            transfer = replace(transfer, workers=workers, address=address, port=_free_port(address))
        try:
            await asyncio.to_thread(self._learner.hand_over, transfer)
        except (LLMError, SyncError):
            raise
        except TransferStuck as error:
            raise SyncError(
                f"the engine {self._engine.name} at {server.root_url} hangs in the transfer of weights by "
                f"{self.config.method}: {error}. Look into its log ({self._engine.log_path}) and, on another machine, "
                "whether both reach each other (sync.address, NCCL_SOCKET_IFNAME); then start it again, and go on with "
                "--resume"
            ) from error
        except Exception as error:
            response = getattr(error, "response", None)
            told = "" if response is None else f": {response.text[:500]}"
            raise LLMError(
                f"the transfer by {self.config.method} failed ({type(error).__name__}: {error}){told}"
            ) from error
        await server.reset_prefix_cache()


def make_sync(config: SyncConfig, folder: Path, dtype: str) -> WeightSync:
    """The sync of `config.method`; arguments as for `WeightSync`."""
    kinds = {"disk": DiskSync, "lora": LoraSync}
    return kinds.get(config.method, TransferSync)(config, folder, dtype)


def _free_port(address: str) -> int:
    """A free port of one of this machine's addresses. Raises SyncError where it has no such address."""
    try:
        with socket.create_server((address, 0)) as probe:
            return probe.getsockname()[1]
    except OSError as error:
        raise SyncError(f"sync.address = {address!r} is no address of this machine: {error}") from None


@contextmanager
def _timed(metrics: dict[str, float], part: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    metrics[f"sync_seconds_{part}"] = time.monotonic() - start


def _as_metrics(check: SyncCheck) -> dict[str, float]:
    found = {
        "sync_mean_abs": check.mean_abs,
        "sync_max_abs": check.max_abs,
        "sync_cached_mean_abs": check.cached_mean_abs,
    }
    return found if check.change is None else found | {"sync_change_share": check.change.share}
