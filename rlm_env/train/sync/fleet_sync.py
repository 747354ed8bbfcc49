"""Brings the trainer's weights into all engines that follow it, each by a `WeightSync` of its own.

The weights are exported once; an engine's folder holds hard links to them. Of several engines, those that stand do not
wait for one that is dead or being restarted: it gets the newest weights, and is verified, before it is asked again.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from rlm_env.llm.base import EngineUnavailable
from rlm_env.runs.engine_table import file_name
from rlm_env.runs.files import disk_errors
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.weight_stream import WeightStream
from rlm_env.train.sync.canary import link_or_copy
from rlm_env.train.sync.config import SyncConfig
from rlm_env.train.sync.engine import TrainEngine
from rlm_env.train.sync.fleet import Fleet
from rlm_env.train.sync.weight_sync import Publisher, WeightSync, make_sync

SUMS = ("sync_requests_cut", "sync_requests_kept")
"""Metrics that are added up over engines; of the others the largest counts, or the smallest of `SMALLEST`."""
SMALLEST = ("sync_change_share",)


class FleetSync:
    """`start` comes first, then a `publish` for each update, as in `WeightSync`. Arguments as there."""

    def __init__(self, config: SyncConfig, folder: Path, dtype: str) -> None:
        self._config, self._folder, self._dtype = config, folder, dtype
        self._syncs: dict[TrainEngine, WeightSync] = {}

    async def start(self, learner: Publisher, fleet: Fleet) -> dict[str, float]:
        """Publishes the learner's weights as they are, to every engine. Raises what `WeightSync.start` raises."""
        self._fleet = fleet
        engines = fleet.followed
        shutil.rmtree(self._folder, ignore_errors=True)
        for engine in engines:
            folder = self._folder if len(engines) == 1 else self._folder / file_name(engine.name)
            self._syncs[engine] = make_sync(self._config, folder, self._dtype)
        publisher = learner if len(engines) == 1 else SharedPublisher(learner)
        found = await _all_of([sync.start(publisher, engine) for engine, sync in self._syncs.items()])
        for engine in engines:
            engine.alone = len(engines) == 1
        return worst_of(found)

    async def publish(self, version: int, learner_free: asyncio.Event | None = None) -> dict[str, float]:
        """Serves the learner's weights as `version`, on every engine, and verifies them. `learner_free`: see
        `WeightSync.publish`. Of several engines a dead one gets them when it is back. Raises SyncError where one
        does not take them, EngineUnavailable where none is left."""
        free = [asyncio.Event() for _ in self._syncs]
        publishing = asyncio.ensure_future(
            _all_of(
                [
                    self._publish(engine, sync, version, event)
                    for (engine, sync), event in zip(self._syncs.items(), free, strict=True)
                ]
            )
        )
        try:
            if learner_free is not None:
                await asyncio.gather(*(event.wait() for event in free))
                learner_free.set()
            found = await publishing
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            if learner_free is not None:
                learner_free.set()
        await self._fleet.restart()
        return worst_of([one for one in found if one])

    async def _publish(
        self, engine: TrainEngine, sync: WeightSync, version: int, learner_free: asyncio.Event
    ) -> dict[str, float]:
        """The metrics of one engine; {} where it is dead."""
        if self._fleet.is_gone(engine):
            learner_free.set()
            return {}
        restarts = engine.restarts
        try:
            found = await sync.publish(version, learner_free)
        except EngineUnavailable as error:
            self._fleet.lose(engine, error)
            return {}
        finally:
            learner_free.set()
        if engine.restarts > restarts:
            self._fleet.returned(engine)
        return found


class SharedPublisher:
    """A learner whose weights several engines want: they are exported once, and only one of them has it at a time."""

    def __init__(self, learner: Publisher) -> None:
        self._learner = learner
        self._lock = threading.Lock()
        self._exports: dict[str, tuple[int, Path]] = {}

    @property
    def version(self) -> int:
        return self._learner.version

    def score(self, samples: list[Sample]) -> Sequence[Sequence[float]]:
        with self._lock:
            return self._learner.score(samples)

    def export(self, folder: Path) -> None:
        self._once("export", folder, self._learner.export)

    def export_adapter(self, folder: Path) -> None:
        self._once("export_adapter", folder, self._learner.export_adapter)

    def hand_over(self, take: Callable[[WeightStream], None]) -> None:
        with self._lock:
            self._learner.hand_over(take)

    def _once(self, kind: str, folder: Path, write: Callable[[Path], None]) -> None:
        """Writes `folder`, or links the files of the same version that were written before."""
        with self._lock:
            version, source = self._exports.get(kind, (None, folder))
            if version == self._learner.version and source != folder and source.exists():
                with disk_errors(folder, "writing weights"):
                    shutil.copytree(source, folder, copy_function=link_or_copy, dirs_exist_ok=True)
            else:
                write(folder)
                self._exports[kind] = self._learner.version, folder


def worst_of(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of several engines as those of one: the worst of each."""
    names = dict.fromkeys(name for one in found for name in one)
    values = {name: [one[name] for one in found if name in one] for name in names}
    how: dict[str, Callable[[list[float]], float]] = {**dict.fromkeys(SUMS, sum), **dict.fromkeys(SMALLEST, min)}
    return {name: how.get(name, max)(values[name]) for name in names}


async def _all_of(work: Sequence[Coroutine[Any, Any, dict[str, float]]]) -> list[dict[str, float]]:
    """Awaits all. The first exception cancels the others, and is raised when they have ended."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
