"""The vLLM that a training run samples from. It takes new weights while rollouts are in flight, and after a crash it is
started again on the weights that were last published.

One local vLLM serves root and sub-LLM, which are the same model. Where weights come from and whether they arrived is
the business of `weight_sync.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError
from rlm_env.llm.http import EndpointError
from rlm_env.llm.token_policy import TokenPolicy
from rlm_env.llm.vllm.install import VLLMStartError, is_cpu_build
from rlm_env.llm.vllm.model_folder import find_model
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.profile import load_profile
from rlm_env.train.sync.config import LARGEST_ADAPTER_RANK
from rlm_env.train.sync.request_gate import GatedLLM, RequestGate

if TYPE_CHECKING:
    from rlm_env.llm.vllm.server import Progress, VLLMServer

ADAPTER = "policy"
"""The name under which vLLM serves the trained adapter."""
ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, LARGEST_ADAPTER_RANK)
"""The values that vLLM takes for `--max-lora-rank`."""
NICENESS = 10
"""Niceness of a vLLM on the CPU: where both share cores, the trainer goes first, since every step waits for it."""
HEALTH_SECONDS = 30.0
"""A vLLM that does not answer for this long counts as dead."""


class TrainEngine:
    """An async context manager around one vLLM process tree.

    `model`: the folder that training begins with; its tokenizer and renderer are used throughout.
    `options`: how vLLM is started. `dtype`: the trainer's type; vLLM runs in it where `options.dtype` is "auto".
    `log_folder`: gets one log per start. `lora_rank`: the rank of the adapter that it will serve; None: it takes whole
    weights. `max_restarts`: the most restarts; the next death is final.
    Errors: VLLMStartError where vLLM does not start; ConfigError where its log-probabilities cannot be trained on, or
    it cannot serve an adapter of this rank.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        options: EngineOptions | None = None,
        *,
        log_folder: Path,
        dtype: str,
        seed: int = 0,
        lora_rank: int | None = None,
        max_restarts: int = 10,
        progress: Progress | None = None,
    ) -> None:
        if lora_rank is not None and lora_rank > LARGEST_ADAPTER_RANK:
            raise ConfigError(f"trainer.lora.rank: vLLM serves ranks up to {LARGEST_ADAPTER_RANK}, got {lora_rank}")
        self.model = find_model(model)
        self.options = options or EngineOptions()
        self.served = self.model.path
        """The folder of the weights, or of the adapter, that it serves."""
        self.version = 0
        """Optimizer steps that these weights have seen."""
        self.restarts = 0
        self.gate = RequestGate()
        self.dtype = dtype if self.options.dtype == "auto" else self.options.dtype
        self._log_folder = log_folder
        self._seed = seed
        self._lora_rank = lora_rank
        self._max_restarts = max_restarts
        self._progress = progress
        self._adapter: Path | None = None
        self._server: VLLMServer | None = None
        self._policy: TokenPolicy | None = None
        self._llm: GatedLLM | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._lifecycle = asyncio.Lock()
        """Held while an engine is replaced or given weights, so that none is started on outdated weights."""

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
        await self._stop()

    @property
    def llm(self) -> LLM:
        """The LLM for root and sub-LLM, the same object across updates and restarts. Requests raise EngineUnavailable
        while the engine is dead, and wait while it is paused."""
        if self._llm is None:
            raise RuntimeError("the engine is not started: use `async with TrainEngine(...)`")
        return self._llm

    @property
    def policy(self) -> TokenPolicy:
        """The current client of the engine, without the gate; for requests while the engine is paused. Raises
        EngineUnavailable while it is being restarted."""
        if self._policy is None:
            raise EngineUnavailable("vLLM is being restarted")
        return self._policy

    @property
    def alive(self) -> bool:
        """True while the process runs, even if it does not answer."""
        return self._server is not None and self._server.alive

    @property
    def base_url(self) -> str:
        """The URL of the OpenAI-compatible routes, with `/v1`. A restart changes it."""
        return self._running().base_url

    @property
    def log_path(self) -> Path | None:
        """The log of the vLLM that runs, or ran last."""
        return None if self._server is None else self._server.log_path

    def paused(self, drain_seconds: float = 120.0) -> contextlib.AbstractAsyncContextManager[float]:
        """Waits until no request is in flight, then makes new ones wait; yields the seconds that this took.

        Requests in flight end first, so that none spans two versions of the weights. Those that take longer than
        `drain_seconds` raise `RequestCut`, an LLMError, and only their rollouts fail.
        """
        return self.gate.closed(drain_seconds)

    async def load(self, folder: Path, version: int) -> None:
        """Serves the weights in `folder` from now on; only while paused. An engine that turns out to be dead is
        started again on them. Raises LLMError where vLLM refuses them."""
        async with self._lifecycle:
            alive = await self._survives(lambda server: server.reload_weights(folder))
            self.served, self.version = folder, version
            if not alive:
                await self._replace()

    async def load_adapter(self, folder: Path, version: int) -> None:
        """Serves the model with the adapter in `folder` from now on; otherwise like `load`."""
        if self._lora_rank is None:
            raise RuntimeError("the engine was started without lora_rank and takes no adapter")
        async with self._lifecycle:
            alive = await self._survives(lambda server: server.load_adapter(ADAPTER, folder))
            self.served, self.version, self._adapter = folder, version, folder
            if not alive:
                await self._replace()
            elif self.policy.name != ADAPTER:
                await self._connect(ADAPTER)

    async def restart(self) -> None:
        """Starts a dead vLLM again on the weights that were last loaded. Does nothing if it answers.

        Concurrent calls share one start. Raises VLLMStartError where vLLM does not start or has died too often.
        """
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._restart())
        await asyncio.shield(self._restarting)  # a cancelled caller must not cancel it for the others

    async def statistics(self) -> str:
        """vLLM's counters and gauges, in the text format of Prometheus. Raises LLMError."""
        return await self._running().statistics()

    async def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's reply to a request to `/v1/completions`, past the gate. Raises EngineUnavailable or another
        LLMError."""
        try:
            return await self.policy.raw_completions(body)
        except EndpointError as error:
            raise EngineUnavailable(str(error)) if await self._is_dead_after(error) else error from None

    def _running(self) -> VLLMServer:
        if self._server is None:
            raise EngineUnavailable("vLLM is not running")
        return self._server

    async def _survives(self, change: Callable[[VLLMServer], Awaitable[None]]) -> bool:
        """Applies `change`; returns False if the engine is dead. Raises LLMError where a living engine refuses."""
        try:
            await change(self._running())
        except LLMError as error:
            if not await self._is_dead_after(error):
                raise
            return False
        return True

    async def _is_dead_after(self, error: LLMError) -> bool:
        """True if the engine is dead. Its API server may live on and answer with an error status."""
        return isinstance(error, EngineUnavailable) or not await self._running().is_healthy(HEALTH_SECONDS)

    async def _restart(self) -> None:
        """Replaces the engine if it does not answer."""
        async with self._lifecycle:
            if self._policy is None or not await self._running().is_healthy(HEALTH_SECONDS):
                await self._replace()

    async def _replace(self) -> None:
        """Stops what is left of a dead engine and starts another one."""
        if self.restarts >= self._max_restarts:
            raise VLLMStartError(f"vLLM has died {self.restarts + 1} times; its last log: {self.log_path}")
        self.restarts += 1
        await self._stop()
        await self._start()

    async def _start(self) -> None:
        """Starts a vLLM on the weights that are to be served."""
        from rlm_env.llm.vllm.server import VLLMServer

        options = self.options.model_dump(include=set(EngineOptions.model_fields))
        options["dtype"] = self.dtype
        env = {}
        if self._lora_rank is not None:
            rank = next(rank for rank in ADAPTER_RANKS if rank >= self._lora_rank)
            options["extra_args"] += ("--enable-lora", "--max-loras", "1", "--max-lora-rank", str(rank))
            env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        server = VLLMServer(
            self.model.path if self._lora_rank is not None else self.served,
            served_name=self.model.name,
            seed=self._seed + self.restarts,  # so that it does not repeat its samples
            env=env,
            log_path=self._log_folder / f"vllm-{self.restarts}.log",
            niceness=NICENESS if is_cpu_build() else 0,
            progress=self._progress,
            **options,
        )
        self._server = await server.__aenter__()
        try:
            if self._adapter is not None:
                await server.load_adapter(ADAPTER, self._adapter)
            await self._connect(self.model.name if self._adapter is None else ADAPTER)
            await server.warm_up()
        except BaseException:
            await self._stop()
            raise

    async def _connect(self, name: str) -> None:
        """Makes `policy` a client of the engine that runs. Raises ConfigError if its log-probabilities are before
        temperature."""
        renderer = load_profile(self.model.path).get("renderer")
        policy = self._running().policy(name, tokenizer=self.model.path, renderer=renderer)
        try:
            mode = await policy.measure_logprobs_mode()
            if mode != "processed_logprobs":
                raise ConfigError(
                    f"engine.extra_args: the engine's log-probabilities are {mode}, before temperature, and cannot be "
                    "trained on: leave --logprobs-mode out"
                )
        except BaseException:
            await policy.aclose()
            raise
        await self._disconnect()
        self._policy = policy
        if self._llm is None:
            self._llm = GatedLLM(self.gate, lambda: self.policy, policy)

    async def _disconnect(self) -> None:
        policy, self._policy = self._policy, None
        if policy is not None:
            await policy.aclose()

    async def _stop(self) -> None:
        await self._disconnect()
        if self._server is not None:
            await self._server.__aexit__(None, None, None)
