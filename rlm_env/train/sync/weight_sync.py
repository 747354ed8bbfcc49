"""Brings the trainer's weights into the running engine and proves that they arrived.

Whole weights go through a folder on disk, an adapter through vLLM's runtime LoRA loading. There is one engine. The
comparison of log-probabilities is in `sync_check.py`.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.train.learner.samples import Sample
from rlm_env.train.sync.canary import write_canary_weights
from rlm_env.train.sync.config import SyncConfig
from rlm_env.train.sync.engine import TrainEngine
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

CANARY = "canary"


class Publisher(Protocol):
    """The part of `Learner` that a sync uses."""

    version: int

    def score(self, samples: list[Sample]) -> Sequence[Sequence[float]]: ...

    def export(self, folder: Path) -> None: ...

    def export_adapter(self, folder: Path) -> None: ...


class WeightSync(ABC):
    """One way of bringing weights into an engine. `start` comes first, then a `publish` for each update.

    `config`: see `SyncConfig`. `folder`: where exports go; only the one that is served stays. `dtype`: the type of the
    trainer's forward pass.
    """

    def __init__(self, config: SyncConfig, folder: Path, dtype: str) -> None:
        self.config = config
        self.folder = folder
        self._dtype = dtype
        self._last_check: BothLogprobs | None = None

    async def start(self, learner: Publisher, engine: TrainEngine) -> dict[str, float]:
        """Publishes the learner's weights as they are, before the first rollout. Else like `publish`.

        The engine may serve these weights already, so it is first given canary weights (`canary.py`), which must
        change its answers: an engine that ignores updates is found out before anything is sampled. One that takes
        only some of the tensors is found out at the first update.
        """
        self._learner = learner
        self._engine = engine
        self._last_check = None
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

        Returns seconds by part (`sync_seconds_export`, `_score`, `_drain`, `_load`, `_verify`), the number of requests
        that did not end in time (`sync_requests_cut`) and the result of the check (`sync_mean_abs`, `sync_max_abs`,
        `sync_cached_mean_abs`, `sync_change_share`). An engine that dies meanwhile is started again on the new
        weights. Raises SyncError, and EngineUnavailable where it does not start.
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
        """Export, score, close the gate, load, compare, open the gate."""
        metrics: dict[str, float] = {}
        served = self._engine.served
        folder = self.folder / f"v{version:06d}"
        if folder == served:  # the engine's files must not change under it
            folder = folder.with_name(f"{folder.name}-again")
        with _timed(metrics, "export"):
            await asyncio.to_thread(self._write, folder)
        with _timed(metrics, "score"):
            expected = await self._trainer_logprobs()
        if learner_free is not None:
            learner_free.set()
        cut_before = self._engine.gate.cut
        async with self._engine.paused(self.config.drain_seconds) as drained:
            metrics["sync_seconds_drain"] = drained
            metrics["sync_requests_cut"] = float(self._engine.gate.cut - cut_before)
            if canary_first:
                await self._load_canary(folder, version, expected)
            with _timed(metrics, "load"):
                await self._replace(folder, version)
            with _timed(metrics, "verify"):
                check = await self._check(expected, version)
        shutil.rmtree(self.folder / CANARY, ignore_errors=True)
        if self.folder in served.parents:
            await asyncio.to_thread(shutil.rmtree, served, ignore_errors=True)
        return metrics | _as_metrics(check)

    async def _load_canary(self, folder: Path, version: int, expected: Logprobs) -> None:
        """Loads canary weights and requires that the engine's answers change."""
        canary = self.folder / CANARY
        await asyncio.to_thread(write_canary_weights, folder, canary)
        await self._replace(canary, version)
        if compare(BothLogprobs(await self._engine_logprobs(), expected)).mean_abs <= self.tolerance:
            raise SyncError(
                "the engine was given other weights and answers as before: updates do not reach it. Look into its "
                f"log ({self._engine.log_path}), and leave out of engine.extra_args what changes how weights are loaded"
            )

    async def _replace(self, folder: Path, version: int) -> None:
        """Makes the engine serve the weights in a folder."""
        try:
            with suppress(EngineUnavailable):  # then it is started again on the new weights
                await self._conversation.fill_cache(self._engine)
            await self._load(folder, version)
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
    """The adapter alone, through vLLM's runtime LoRA loading; the engine needs `lora_rank`."""

    def _write(self, folder: Path) -> None:
        self._learner.export_adapter(folder)

    async def _load(self, folder: Path, version: int) -> None:
        await self._engine.load_adapter(folder, version)


METHODS: dict[str, Callable[[SyncConfig, Path, str], WeightSync]] = {"disk": DiskSync, "lora": LoraSync}


def make_sync(config: SyncConfig, folder: Path, dtype: str) -> WeightSync:
    """The sync of `config.method`; arguments as for `WeightSync`."""
    return METHODS[config.method](config, folder, dtype)


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
