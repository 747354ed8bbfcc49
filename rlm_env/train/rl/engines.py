"""Starts, or finds, the engines that a training config names, and makes them one fleet.

What an entry of `[[engines]]` may say is in `engine_entries.py`; which of them are up while the run goes on, in
`rlm_env/train/sync/fleet.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.llm.base import LLM, EngineUnavailable
from rlm_env.runs.console import say_note, stage
from rlm_env.runs.engines import connect
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.judge import CountedJudge
from rlm_env.runs.models import model_folder
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.engine_entries import TrainEngineEntry, engines_for
from rlm_env.train.sync.engine import TrainEngine
from rlm_env.train.sync.fleet import FixedEndpoint, Fleet, Member
from rlm_env.train.sync.local_engine import LocalEngine
from rlm_env.train.sync.remote_engine import EXTENSION, RemoteEngine

SEEDS = 1000
"""Between the seeds of two local engines, so that none repeats another's samples; a restart adds one."""

NOT_COUNTED = (
    "engines.{}: it does not tell how many tokens requests in flight have, so they end before each update; to let them "
    "go on, start it with --worker-extension-cls {}"
)
"""Said at the start of a run."""


class JudgeSeat:
    """The judge of a run, which environments get before any engine runs."""

    def __init__(self, config: TrainConfig) -> None:
        self._engine: LLM | None = None
        self.judge: CountedJudge | None = None
        entries = engines_for("judge", config.engine_entries())
        if entries:
            first = entries[0]
            self.judge = CountedJudge(first.model or first.name, self._get)
            self.judge.context_window, self.judge.supports_tools = first.window, first.tools
            self.judge.concurrency = sum(entry.concurrency for entry in entries)

    def open(self, engine: LLM | None) -> None:
        """The engine that judges runs."""
        self._engine = engine

    async def _get(self) -> LLM:
        if self._engine is None:
            raise EngineUnavailable("the judge is not started yet")
        return self._engine


def check_fixed_models(config: TrainConfig) -> None:
    """Raises ConfigError where a model that a fixed engine serves, its tokenizer, or its key is not on this machine."""
    for entry in config.engine_entries():
        try:
            entry.key()
        except ConfigError as error:
            raise ConfigError(f"engines.{entry.name}.key_env: {error}") from error
        named = entry.tokens if entry.base_url else entry.model
        if named and not entry.followed:
            try:
                model_folder(named)
            except ConfigError as error:
                raise ConfigError(f"engines.{entry.name}: {error}") from error


@contextlib.asynccontextmanager
async def open_fleet(
    config: TrainConfig, model: Path, console: Console, tell: Callable[[str], None]
) -> AsyncIterator[Fleet]:
    """The engines of a run, ready to answer, with their start shown. `model`: the folder of the policy.

    Raises ConfigError where one cannot do what the run needs, RunStopped or EngineUnavailable where one does not start
    or answer.
    """
    entries = config.engine_entries()
    async with contextlib.AsyncExitStack() as stack:
        with stage(console, _starting(config, entries)) as show:
            at: dict[str, str] = {}

            async def begin(number: int, entry: TrainEngineEntry) -> Member:
                def progress(stage_of_start: str, seconds: float) -> None:
                    at[entry.name] = f"{stage_of_start}, {seconds:.0f} s"
                    names = {name: f"{name}: " if len(entries) > 1 else "" for name in at}
                    show("; ".join(f"{names[name]}{text}" for name, text in at.items()))

                return await _open(config, entry, model, number, progress, stack)

            starts = [asyncio.create_task(begin(number, entry)) for number, entry in enumerate(entries)]
            try:
                members = await asyncio.gather(*starts)
            finally:
                for start in starts:
                    start.cancel()
                await asyncio.gather(*starts, return_exceptions=True)
        fleet = Fleet(members, tell, config.sync.return_seconds)
        for engine in fleet.followed:
            if config.sync.in_flight == "keep" and not engine.counts_tokens:
                say_note(console, NOT_COUNTED.format(engine.name, EXTENSION))
        try:
            yield fleet
        finally:
            await fleet.aclose()


def _starting(config: TrainConfig, entries: tuple[TrainEngineEntry, ...]) -> str:
    """The line that is shown while engines start."""
    here = [entry for entry in entries if entry.base_url is None]
    if len(entries) == 1 and here:
        return f"starting vLLM with {config.model}"
    return f"starting {len(here)} vLLM, connecting to {len(entries) - len(here)} by URL"


async def _open(
    config: TrainConfig,
    entry: TrainEngineEntry,
    model: Path,
    number: int,
    progress: Callable[[str, float], None],
    stack: contextlib.AsyncExitStack,
) -> Member:
    """Starts or finds one engine. `number`: its place in the table."""
    if entry.base_url is not None and not entry.followed:
        llm = await connect(entry)
        stack.push_async_callback(llm.aclose)
        return Member(entry.name, FixedEndpoint(llm), entry.roles, followed=False)
    engine = _engine(config, entry, model, number, progress)
    default = TrainEngineEntry.model_fields
    limits: dict[str, Any] = {key: getattr(entry, key) for key in ("concurrency", "timeout", "retries")}
    engine.limits = {key: value for key, value in limits.items() if value != default[key].default}
    await stack.enter_async_context(engine)
    return Member(entry.name, engine, entry.roles, entry.followed)


def _engine(
    config: TrainConfig, entry: TrainEngineEntry, model: Path, number: int, progress: Callable[[str, float], None]
) -> TrainEngine:
    """The engine of an entry, not started yet."""
    lora = config.trainer.lora if config.sync.method == "lora" and entry.followed else None
    rank = None if lora is None else lora.rank
    if entry.base_url is not None:
        return RemoteEngine(model, entry.base_url, entry.model or None, name=entry.name, lora_rank=rank)
    own = not entry.followed and entry.model
    return LocalEngine(
        model_folder(entry.model) if own else model,
        entry.server,
        name=entry.name,
        log_folder=config.out,
        dtype="auto" if own else config.trainer.dtype,
        seed=config.seed + SEEDS * number,
        lora_rank=rank,
        method=config.sync.method if entry.followed else "disk",
        progress=progress,
    )
