"""Starts, watches and stops the engines of a run: one local vLLM per distinct model, or clients of an endpoint.

Not covered: finding a model (`rlm_env/runs/models.py`), the engines themselves (`rlm_env/llm/`).
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from rlm_env.llm.base import LLM, EngineRefused, EngineUnavailable, LLMError, Sampling
from rlm_env.llm.vllm.arguments import argument_names
from rlm_env.messages import Usage
from rlm_env.runs.console import stage
from rlm_env.runs.engine_table import EngineEntry, Role
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.judge import CountedJudge
from rlm_env.runs.models import ModelRef, model_folder
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.profile import load_profile

if TYPE_CHECKING:
    from rlm_env.llm.vllm.server import VLLMServer

WATCH_SECONDS = 1.0


@dataclass(slots=True)
class Engines:
    """The LLMs that sample the rollouts of a run, and the local servers behind all its engines."""

    root: LLM
    sub: LLM
    servers: list[VLLMServer] = field(default_factory=list)

    @property
    def logs(self) -> list[Path]:
        """Logs of the local servers."""
        return [server.log_path for server in self.servers]

    async def watch(self) -> None:
        """Raises EngineUnavailable when a local server dies; never returns."""
        while True:
            for server in self.servers:
                if not server.alive:
                    name, status = server.served_name, server.exit_code
                    raise EngineUnavailable(f"the vLLM that serves {name} died (status {status})")
            await asyncio.sleep(WATCH_SECONDS)


class EnginePool:
    """The engines of a run, or of several together, each started when it is first needed; an async context manager
    that closes and stops all at its end."""

    def __init__(
        self,
        entries: Mapping[Role, EngineEntry],
        models: Mapping[Role, ModelRef],
        log_folder: Path,
        console: Console,
        seed: int = 0,
    ) -> None:
        """`models`: of the roles that are needed; `seed`: of the local servers.

        Raises ConfigError for a key of an endpoint that is not set.
        """
        self._entries, self._models, self._seed = entries, models, seed
        self._log_folder, self._console = log_folder, console
        for role in models:
            self._entries[role].key()  # a missing one is found before anything is made
        self._stack = contextlib.AsyncExitStack()
        self._lock = asyncio.Lock()
        self._llms: dict[tuple[ModelRef, EngineEntry | EngineOptions], LLM] = {}
        self.servers: list[VLLMServer] = []
        self.judge = self._judge() if "judge" in models else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def engines(self) -> Engines:
        """Root and sub-LLM, ready to answer. Raises what `get` raises."""
        return Engines(await self.get("root"), await self.get("sub"), self.servers)

    async def get(self, role: Role) -> LLM:
        """The engine of a role, ready to answer; roles whose model and place are the same share it.

        Raises ConfigError for a missing tokenizer, RunStopped if a server does not start.
        """
        entry, ref = self._entries[role], self._models[role]
        async with self._lock:
            key = ref, entry if ref.base_url else entry.server
            if key not in self._llms:
                self._llms[key] = llm = await self._open(entry, ref)
                self._stack.push_async_callback(llm.aclose)
            return self._llms[key]

    def _judge(self) -> CountedJudge:
        """The judge, which is started when it is first asked, and closed with the other engines."""
        entry = self._entries["judge"]
        judge = CountedJudge(entry.model, lambda: self.get("judge"))
        judge.context_window, judge.supports_tools = entry.window, entry.tools
        judge.concurrency = entry.concurrency
        return judge

    async def _open(self, entry: EngineEntry, ref: ModelRef) -> LLM:
        """Starts a vLLM on a model folder, or makes a client of an endpoint."""
        if ref.folder is None:
            return await connect(entry)
        log = _new_log(self._log_folder, ref.name)
        local = {(one, self._entries[role].server) for role, one in self._models.items() if one.folder}
        sharing = sum(share_devices(entry.server, options) for _, options in local)
        serving = _serve(ref, ref.folder, entry.server, self._seed, log, self._console, sharing)
        server = await self._stack.enter_async_context(serving)
        self.servers.append(server)
        own = entry.concurrency != EngineEntry.model_fields["concurrency"].default
        limits: dict[str, Any] = {"concurrency": entry.concurrency} if own else {}
        return server.policy(renderer=load_profile(ref.folder).get("renderer"), **limits)


async def ask_each(engines: Engines, sampling: Mapping[str, Sampling]) -> dict[str, Usage]:
    """Asks every engine one small question, with the sampling of its role, before anything else is paid.

    Returns what that cost by role; an engine with two roles is asked once. Raises RunStopped if one refuses.
    """
    roles = {"root": engines.root, "sub": engines.sub}
    usage: dict[str, Usage] = {}
    for llm in dict.fromkeys(roles.values()):
        names = [role for role, other in roles.items() if other is llm]
        try:
            usage[names[0]] = await llm.preflight(sampling[names[0]])
        except LLMError as error:
            who = f"the {' and '.join(names)} LLM {llm.name}"
            raise RunStopped(
                "endpoint refused", f"{who} gave no answer: {error}\nNothing else was asked.", 3
            ) from error
    return usage


def engine_stop(error: EngineUnavailable, engines: Engines) -> RunStopped:
    """The end of a run whose engine cannot be asked any more."""
    if isinstance(error, EngineRefused):
        return RunStopped("endpoint refused", f"the endpoint refuses: {error}", 3)
    log = "".join(f"\nIts log: {path}" for path in engines.logs)
    return RunStopped("engine unavailable", f"the engine does not answer any more: {error}{log}", 3)


async def connect(entry: EngineEntry) -> LLM:
    """A client of a model at an endpoint. Raises ConfigError, and RunStopped if a vLLM does not answer."""
    base_url = entry.base_url or ""
    if entry.tokens is None:
        from rlm_env.llm.openai_chat import OpenAIChat

        options: dict[str, Any] = {"stream": True} if entry.stream else {}
        return OpenAIChat(
            entry.model,
            base_url,
            api_key=entry.key(),
            context_window=entry.window,
            concurrency=entry.concurrency,
            timeout=entry.timeout,
            retries=entry.retries,
            supports_tools=entry.tools,
            **options,
        )
    from rlm_env.llm.token_policy import TokenPolicy

    try:
        folder = model_folder(entry.tokens)
        renderer = load_profile(folder).get("renderer")
        limits = {key: getattr(entry, key) for key in ("concurrency", "timeout", "retries")}
        own = {key: value for key, value in limits.items() if value != EngineEntry.model_fields[key].default}
        return await TokenPolicy.connect(base_url, folder, model=entry.model, renderer=renderer, **own)
    except ConfigError as error:
        raise ConfigError(f"tokens: {error}") from error
    except LLMError as error:
        raise RunStopped("engine unavailable", str(error), 3) from error


def _new_log(folder: Path, model: str) -> Path:
    """The path of a log that is not there yet, so that a resumed run keeps the log of the run before."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"vllm-{model.replace('/', '--')}"
    taken = sum(1 for path in folder.glob(f"{glob.escape(name)}*.log"))
    return folder / (f"{name}-{taken + 1}.log" if taken else f"{name}.log")


def share_devices(options: EngineOptions, other: EngineOptions) -> bool:
    """Whether two local servers use a GPU in common."""
    if options.devices is None or other.devices is None:
        return True
    return not set(map(str, options.devices)).isdisjoint(map(str, other.devices))


def server_options(options: EngineOptions, sharing: int) -> dict[str, Any]:
    """Keyword arguments of `VLLMServer`. `sharing` servers on one GPU get equal parts of its memory, unless
    `extra_args` says otherwise: by default each would take nine tenths, and the second would not start."""
    values = options.model_dump()
    if sharing > 1 and "--gpu-memory-utilization" not in argument_names(options.extra_args):
        values["extra_args"] += ("--gpu-memory-utilization", f"{0.9 / sharing:.2f}")
    return values


@contextlib.asynccontextmanager
async def _serve(
    ref: ModelRef, folder: Path, options: EngineOptions, seed: int, log: Path, console: Console, sharing: int
) -> AsyncIterator[VLLMServer]:
    """A local vLLM while the block runs, with its start shown on the console."""
    from rlm_env.llm.vllm.server import VLLMServer, is_cpu_build

    with stage(console, f"starting vLLM with {ref.name} (log: {log})") as tell:
        try:
            server = VLLMServer(
                folder,
                served_name=ref.name,
                seed=seed,
                log_path=log,
                progress=lambda at, seconds: tell(f"{at}, {seconds:.0f} s"),
                **server_options(options, 1 if is_cpu_build() else sharing),
            )
            await server.__aenter__()
        except EngineUnavailable as error:
            raise RunStopped("engine unavailable", str(error), 3) from error
    try:
        await server.warm_up()
        yield server
    finally:
        await server.__aexit__(None, None, None)
