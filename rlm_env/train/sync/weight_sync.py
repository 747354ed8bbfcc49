"""The trainer's weights into the running engine, and proof that they arrived.

Covered: whole weights through a folder on disk, an adapter through vLLM's runtime LoRA loading. Not covered: copies
from memory to memory (`ipc`, `nccl`), which the configuration refuses; several engines.
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
from rlm_env.train.rl.config import SyncConfig
from rlm_env.train.sync.canary import write_canary
from rlm_env.train.sync.engine import TrainEngine
from rlm_env.train.sync.sync_check import TOLERANCES, Probe, Scores, SyncCheck, SyncError, compare, judge

DECOY = "canary"


class Publisher(Protocol):
    """What is needed of a `Learner`."""

    version: int

    def score(self, samples: list[Sample]) -> Sequence[Sequence[float]]: ...

    def export(self, folder: Path) -> None: ...

    def export_adapter(self, folder: Path) -> None: ...


class WeightSync(ABC):
    """One way of bringing weights into an engine.

    `config`: see `SyncConfig`. `folder`: where exports go; only the one that is served stays. `dtype`: of the
    trainer's forward pass.
    """

    def __init__(self, config: SyncConfig, folder: Path, dtype: str) -> None:
        self.config = config
        self.folder = folder
        self._dtype = dtype
        self._before: tuple[Scores, Scores] | None = None
        """What engine and trainer said at the last check."""

    async def start(self, learner: Publisher, engine: TrainEngine) -> dict[str, float]:
        """Publishes the learner's weights as they are, before the first rollout. Else like `publish`.

        Since the engine may serve the same weights already, it is first given others (`canary.py`), which must show:
        an engine that takes nothing is found out before anything is sampled. One that takes a part only is found
        out at the first update.
        """
        self._learner = learner
        self._engine = engine
        self._before = None
        types = {self._dtype, engine.dtype}
        self.tolerance = self.config.check_tolerance or TOLERANCES["float32" if types == {"float32"} else "bfloat16"]
        shutil.rmtree(self.folder, ignore_errors=True)
        self._probe = await Probe.sample(engine)
        return await self._publish(learner.version, prove=True)

    async def publish(self, version: int, taken: asyncio.Event | None = None) -> dict[str, float]:
        """Serves the learner's weights as `version`, while rollouts are in flight, and verifies them before the
        first request goes on.

        `taken` is set when the weights are exported and the learner has been asked what it needs to be asked: from
        then on it may be trained further. It is set on errors too.

        Returns seconds by part (`sync_seconds_export`, `_score`, `_drain`, `_load`, `_verify`) and what the check
        found (`sync_mean_abs`, `sync_max_abs`, `sync_cached_mean_abs`, `sync_followed`). Where the engine dies on
        the way, it is started again on the new weights. Raises SyncError, and EngineUnavailable where it cannot be
        started.
        """
        try:
            return await self._publish(version, taken)
        finally:
            if taken is not None:
                taken.set()

    async def verify(self) -> SyncCheck:
        """Asks the engine and the learner again, at any time. Raises SyncError where they do not agree."""
        expected = await self._trainer_scores()
        async with self._engine.paused(self.config.drain_seconds):
            return await self._check(expected, self._engine.version)

    async def close(self) -> None:
        """Nothing is held but the folder that the engine serves, which stays."""

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Exports what `_load` reads."""

    @abstractmethod
    async def _load(self, folder: Path, version: int) -> None:
        """Makes the engine serve it, and forget what it cached."""

    async def _publish(
        self, version: int, taken: asyncio.Event | None = None, *, prove: bool = False
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        served = self._engine.served
        folder = self.folder / f"v{version:06d}"
        if folder == served:  # which must not change under the engine
            folder = folder.with_name(f"{folder.name}-again")
        with _timed(metrics, "export"):
            await asyncio.to_thread(self._write, folder)
        with _timed(metrics, "score"):
            expected = await self._trainer_scores()
        if taken is not None:
            taken.set()
        async with self._engine.paused(self.config.drain_seconds) as drained:
            metrics["sync_seconds_drain"] = drained
            if prove:
                await self._prove(folder, version, expected)
            with _timed(metrics, "load"):
                await self._replace(folder, version)
            with _timed(metrics, "verify"):
                check = await self._check(expected, version)
        shutil.rmtree(self.folder / DECOY, ignore_errors=True)
        if self.folder in served.parents:
            await asyncio.to_thread(shutil.rmtree, served, ignore_errors=True)
        return metrics | _as_metrics(check)

    async def _prove(self, folder: Path, version: int, expected: Scores) -> None:
        canary = self.folder / DECOY
        await asyncio.to_thread(write_canary, folder, canary)
        await self._replace(canary, version)
        if compare(await self._engine_scores(), expected).mean_abs <= self.tolerance:
            raise SyncError(
                "the engine was given other weights and answers as before: updates do not reach it. Look into its "
                f"log ({self._engine.log_path}), and leave out of engine.extra_args what changes how weights are loaded"
            )

    async def _replace(self, folder: Path, version: int) -> None:
        try:
            with suppress(EngineUnavailable):  # then it is started again on the new weights
                await self._probe.fill_cache(self._engine)
            await self._load(folder, version)
        except LLMError as error:
            if isinstance(error, EngineUnavailable):
                raise
            raise SyncError(f"the engine did not take version {version}: {error}") from error

    async def _trainer_scores(self) -> Scores:
        (logprobs,) = await asyncio.to_thread(self._learner.score, [self._probe.as_sample])
        return self._probe.trainer_scores(logprobs)

    async def _engine_scores(self) -> Scores:
        try:
            return await self._probe.engine_scores(self._engine)
        except EngineUnavailable:
            await self._engine.restart()
            return await self._probe.engine_scores(self._engine)

    async def _check(self, expected: Scores, version: int) -> SyncCheck:
        found = await self._engine_scores()
        check = compare(found, expected, self._before)
        judge(check, self.tolerance, version)
        self._before = found, expected
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
    """The sync of `config.method`; arguments as for `WeightSync`. Raises ValueError on one that is not there."""
    if config.method not in METHODS:
        raise ValueError(f'sync.method = "{config.method}" is not there yet; use {" or ".join(map(repr, METHODS))}')
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
    return found if check.followed is None else found | {"sync_followed": check.followed}
