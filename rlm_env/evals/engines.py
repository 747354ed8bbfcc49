"""Starts, watches and stops the engines of a run: one local vLLM per distinct model, or clients of an endpoint.

Not covered: finding a model (`rlm_env/runs/models.py`), the engines themselves (`rlm_env/llm/`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.evals.config import EvalConfig
from rlm_env.llm.base import LLM, EngineUnavailable, LLMError, Sampling
from rlm_env.llm.vllm.model_folder import ModelNotFound, find_model
from rlm_env.messages import Usage
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.models import ModelRef
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.profile import load_profile

if TYPE_CHECKING:
    from rlm_env.llm.vllm.server import VLLMServer

WATCH_SECONDS = 1.0


@dataclass(slots=True)
class Engines:
    """The LLMs of a run, and the local servers behind them."""

    root: LLM
    sub: LLM
    servers: list[VLLMServer] = field(default_factory=list)

    @property
    def logs(self) -> list[Path]:
        return [server.log_path for server in self.servers]

    async def watch(self) -> None:
        """Raises EngineUnavailable when a local server dies; never returns."""
        while True:
            for server in self.servers:
                if not server.alive:
                    name, status = server.served_name, server.exit_code
                    raise EngineUnavailable(f"the vLLM that serves {name} died (status {status})")
            await asyncio.sleep(WATCH_SECONDS)


@contextlib.asynccontextmanager
async def open_engines(
    config: EvalConfig, models: Mapping[str, ModelRef], log_folder: Path, console: Console
) -> AsyncIterator[Engines]:
    """The engines of a run, ready to answer; closed and stopped at the end.

    Raises ConfigError for a missing key or tokenizer, RunStopped if a server does not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        llms: dict[ModelRef, LLM] = {}
        servers: list[VLLMServer] = []
        local = len({ref for ref in models.values() if ref.folder})
        for ref in dict.fromkeys(models.values()):
            if ref.base_url is not None:
                llms[ref] = await connect(config, ref.name, ref.base_url)
            elif ref.folder is not None:
                server = await stack.enter_async_context(_serve(config, ref, ref.folder, log_folder, console, local))
                servers.append(server)
                llms[ref] = server.policy(renderer=load_profile(ref.folder).get("renderer"))
            stack.push_async_callback(llms[ref].aclose)
        yield Engines(llms[models["root"]], llms[models["sub"]], servers)


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
    log = "".join(f"\nIts log: {path}" for path in engines.logs)
    return RunStopped("engine unavailable", f"the engine does not answer any more: {error}{log}", 3)


def api_key(config: EvalConfig) -> str | None:
    """The endpoint's key from its environment variable. Raises ConfigError if that is not set."""
    if config.api_key_env is None:
        return None
    if key := os.environ.get(config.api_key_env):
        return key
    raise ConfigError(f"the environment variable {config.api_key_env} (api_key_env) is not set")


async def connect(config: EvalConfig, model: str, base_url: str) -> LLM:
    """A client of a model at an endpoint. Raises ConfigError, and RunStopped if a vLLM does not answer."""
    if config.tokens is None:
        from rlm_env.llm.openai_chat import OpenAIChat

        return OpenAIChat(model, base_url, api_key=api_key(config))
    from rlm_env.llm.token_policy import TokenPolicy

    try:
        folder = find_model(config.tokens).path
        renderer = load_profile(folder).get("renderer")
        return await TokenPolicy.connect(base_url, folder, model=model, renderer=renderer)
    except ModelNotFound as error:
        raise ConfigError(f"tokens: {error}") from error
    except LLMError as error:
        raise RunStopped("engine unavailable", str(error), 3) from error


def server_options(options: EngineOptions, sharing: int) -> dict[str, Any]:
    """Keyword arguments of `VLLMServer`. `sharing` servers on one GPU get equal parts of its memory, unless
    `extra_args` says otherwise: by default each would take nine tenths, and the second would not start."""
    values = options.model_dump()
    if sharing > 1 and "--gpu-memory-utilization" not in options.extra_args:
        values["extra_args"] += ("--gpu-memory-utilization", f"{0.9 / sharing:.2f}")
    return values


@contextlib.asynccontextmanager
async def _serve(
    config: EvalConfig, ref: ModelRef, folder: Path, log_folder: Path, console: Console, servers: int
) -> AsyncIterator[VLLMServer]:
    from rlm_env.llm.vllm.server import VLLMServer, is_cpu_build

    log = log_folder / f"vllm-{ref.name.replace('/', '--')}.log"
    start = time.monotonic()
    with console.status(f"starting vLLM with {ref.name}") as status:

        def show(stage: str, seconds: float) -> None:
            status.update(f"starting vLLM with {ref.name}: {stage}, {seconds:.0f} s")

        if not console.is_terminal:
            console.print(f"starting vLLM with {ref.name} (log: {log})", markup=False)
        try:
            server = VLLMServer(
                folder,
                served_name=ref.name,
                seed=config.seed,
                log_path=log,
                progress=show,
                **server_options(config.engine, 1 if is_cpu_build() else servers),
            )
            await server.__aenter__()
        except EngineUnavailable as error:
            raise RunStopped("engine unavailable", str(error), 3) from error
    try:
        await server.warm_up()
        console.print(f"vLLM serves {ref.name} after {time.monotonic() - start:.0f} s (log: {log})", markup=False)
        yield server
    finally:
        await server.__aexit__(None, None, None)
