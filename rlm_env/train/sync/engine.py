"""An engine that a training run samples from: it takes new weights while rollouts are in flight, and comes back after a
death on the weights that it was last given.

It serves root and sub-LLM, which are the same model. What starts it, or finds it, is in `local_engine.py` and
`remote_engine.py`; where weights come from and whether they arrived is the business of `weight_sync.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rlm_env.llm.base import LLM, EngineUnavailable, LLMError
from rlm_env.llm.http import EndpointError
from rlm_env.llm.token_policy import TokenPolicy
from rlm_env.llm.vllm.install import VLLMStartError
from rlm_env.llm.vllm.model_folder import find_model
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.profile import load_profile
from rlm_env.train.sync.config import LARGEST_ADAPTER_RANK
from rlm_env.train.sync.request_gate import GatedLLM, RequestGate
from rlm_env.train.sync.while_healthy import Result, while_healthy

if TYPE_CHECKING:
    from rlm_env.llm.vllm.control import VLLMControl

ADAPTER = "policy"
"""The name under which vLLM serves the trained adapter."""
HEALTH_SECONDS = 30.0
"""A vLLM that does not answer for this long counts as dead."""


class EngineGone(VLLMStartError):
    """The engine has died and cannot come back, however long one waits."""


class TrainEngine(ABC):
    """An async context manager around one vLLM, which runs while the body does.

    `name`: in messages. `model`: the folder that training begins with; its tokenizer and renderer are used throughout.
    `dtype`: the type that it computes in. `lora_rank`: the rank of the adapter that it will serve; None: it takes whole
    weights.
    Errors: EngineUnavailable where it does not start or answer; ConfigError where its log-probabilities cannot be
    trained on, or it cannot serve an adapter of this rank.
    """

    _logprobs_option: ClassVar[str] = "engine.extra_args"
    _logprobs_remedy: ClassVar[str] = "leave --logprobs-mode out"

    def __init__(
        self, model: str | os.PathLike[str], *, name: str = "vllm", dtype: str, lora_rank: int | None = None
    ) -> None:
        if lora_rank is not None and lora_rank > LARGEST_ADAPTER_RANK:
            raise ConfigError(f"trainer.lora.rank: vLLM serves ranks up to {LARGEST_ADAPTER_RANK}, got {lora_rank}")
        self.name = name
        self.model = find_model(model)
        self.served = self.model.path
        """The folder of the weights, or of the adapter, that it serves."""
        self.version = 0
        """Optimizer steps that these weights have seen."""
        self.restarts = 0
        """How often it came back."""
        self.gate = RequestGate()
        self.kept = 0
        """Prompts in flight that the last update let go on under its weights."""
        self.prove: Callable[[], Awaitable[None]] | None = None
        """Called when it came back, before requests are let in: raises where it does not serve what it should, or would
        take no other weights."""
        self.alone = True
        """No other engine takes the run's weights, so that an update that finds it dead waits until it is back."""
        self.away = False
        """It has died and is not back yet."""
        self._owed: tuple[Path, int] | None = None
        """Weights of updates that it missed, and their version."""
        self._proven = True
        self.counts_tokens = True
        """It tells how many tokens requests in flight have, so that they may go on across an update."""
        self.dtype = dtype
        self.limits: Mapping[str, Any] = {}
        """Options of its client that are not the usual ones: `concurrency`, `timeout`, `retries`."""
        self._lora_rank = lora_rank
        self._adapter: Path | None = None
        self._server: VLLMControl | None = None
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
            raise RuntimeError("the engine is not started: use it as an async context manager")
        return self._llm

    @property
    def policy(self) -> TokenPolicy:
        """The current client of the engine, without the gate; for requests while the engine is paused. Raises
        EngineUnavailable while it is being restarted."""
        if self._policy is None:
            raise EngineUnavailable(f"{self.name} is being restarted")
        return self._policy

    @property
    def alive(self) -> bool:
        """True while the process runs, as far as is known, even if it does not answer."""
        return self._server is not None and self._server.alive

    @property
    def base_url(self) -> str:
        """The URL of the OpenAI-compatible routes, with `/v1`. A restart changes it."""
        return self._running().base_url

    @property
    def log_path(self) -> Path | None:
        """The log of the vLLM that runs, or ran last; None where it is somebody else's."""
        return None

    def paused(self, drain_seconds: float = 120.0) -> contextlib.AbstractAsyncContextManager[float]:
        """Waits until no request is in flight, then makes new ones wait; yields the seconds that this took.

        Requests in flight end first, so that none spans two versions of the weights. Those that take longer than
        `drain_seconds` raise `RequestCut`, an LLMError, and only their rollouts fail.
        """
        return self.gate.closed(drain_seconds)

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[float]:
        """The engine stands still until the body has ended, with requests in flight as they are; new ones wait. Yields
        the seconds that this took.

        Afterwards they go on under the weights that the body has loaded: what they have is computed again, and they
        record from which token on these sample. Where the body raises they end as failed, since the engine may have
        lost its weights.
        """
        start, self.kept = time.monotonic(), 0
        async with self.gate.shut():
            self._require_presence()
            async with self._lifecycle:  # an engine that is being proven must answer
                restarts = self.restarts
                try:
                    await self._watched(self._running().pause())
                except EngineUnavailable:
                    if not self.alone:
                        raise
                    # the body finds that out, and starts it again
            try:
                yield time.monotonic() - start
                if self.restarts == restarts:
                    await self._go_on()
            except BaseException:
                with contextlib.suppress(LLMError, TimeoutError):
                    async with asyncio.timeout(HEALTH_SECONDS):
                        server = self._running()
                        await server.pause("abort")
                        await server.resume()
                raise

    async def _go_on(self) -> None:
        """The end of a pause. A death shows in what is asked next."""
        with contextlib.suppress(EngineUnavailable):
            tokens = await self._watched(self._running().tokens_in_flight())
            self.kept = self.policy.weights_changed(self.version, tokens)
            await self._watched(self._running().resume())

    async def try_on(self, folder: Path) -> None:
        """Serves the weights or the adapter in `folder` for a moment; only in `prove`. Raises LLMError."""
        server = self._running()
        whole = self._adapter is None
        await self._watched(server.reload_weights(folder) if whole else server.load_adapter(ADAPTER, folder))

    async def load(self, folder: Path, version: int) -> None:
        """Serves the weights in `folder` from now on; only while paused. An engine that turns out to be dead is
        started again on them if it is alone. Raises LLMError where vLLM refuses them, EngineUnavailable where it is
        dead and others take them."""
        self._require_presence()
        async with self._lifecycle:
            alive = await self._survives(lambda server: self._watched(server.reload_weights(folder)))
            self.served, self.version = folder, version
            if not alive:
                await self._come_back_at_once()
            self.policy.weights_changed(version)

    def comes_back_on(self, folder: Path) -> None:
        """Where it dies before the next load, it serves this folder when it is back."""
        self.served = folder
        if self._adapter is not None:
            self._adapter = folder

    def owe(self, folder: Path, version: int) -> None:
        """It misses an update: it serves this folder before it is asked again. For engines that are away, or whose
        `restart` comes next."""
        self._owed = folder, version

    @property
    def is_behind(self) -> bool:
        """Whether it is owed weights."""
        return self._owed is not None

    @property
    def needed(self) -> set[Path]:
        """The folders that it serves, is started on, or is owed."""
        return {self.served} if self._owed is None else {self.served, self._owed[0]}

    async def receive(self, send: Callable[[VLLMControl], Awaitable[None]], version: int) -> None:
        """Serves the weights that `send` brings into its memory; only while it stands still. Raises LLMError where
        that fails, EngineUnavailable where the engine is dead, whose weights are nowhere else."""
        async with self._lifecycle:
            if not await self._survives(send):
                raise EngineUnavailable(f"{self.name} died while it took weights")
            self.version = version
            self.policy.weights_changed(version)

    async def load_adapter(self, folder: Path, version: int) -> None:
        """Serves the model with the adapter in `folder` from now on; otherwise like `load`."""
        if self._lora_rank is None:
            raise RuntimeError("the engine was started without lora_rank and takes no adapter")
        self._require_presence()
        async with self._lifecycle:
            alive = await self._survives(lambda server: self._watched(server.load_adapter(ADAPTER, folder)))
            self.served, self.version, self._adapter = folder, version, folder
            if not alive:
                await self._come_back_at_once()
            elif self.policy.name != ADAPTER:
                await self._connect(ADAPTER)
            self.policy.weights_changed(version)

    async def restart(self) -> None:
        """Brings a vLLM back that is dead or has lost its weights, on those that were last loaded, or on newer ones of
        updates that it missed. Does nothing if it answers and missed none.

        Concurrent calls share one start. Raises EngineUnavailable where it does not come back.
        """
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._restart())
        await asyncio.shield(self._restarting)  # a cancelled caller must not cancel it for the others

    async def leave(self) -> None:
        """It will not be asked again: ends its processes, if they are ours."""
        async with self._lifecycle:
            await self._stop()

    async def is_healthy(self, within: float) -> bool:
        """Whether the engine reports within so many seconds that it is healthy."""
        return await self._running().is_healthy(within)

    async def statistics(self) -> str:
        """vLLM's counters and gauges, in the text format of Prometheus. Raises EngineUnavailable where it hangs or is
        dead, or another LLMError."""
        return await self._watched(self._running().statistics())

    async def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's reply to a request to `/v1/completions`, past the gate. Raises EngineUnavailable or another
        LLMError."""
        try:
            return await self._watched(self.policy.raw_completions(body))
        except EndpointError as error:
            raise EngineUnavailable(str(error)) if await self._is_dead_after(error) else error from None

    def _running(self) -> VLLMControl:
        if self._server is None:
            raise EngineUnavailable("vLLM is not running")
        return self._server

    async def _watched(self, asked: Awaitable[Result]) -> Result:
        """The answer to what was asked; EngineUnavailable where the engine hangs."""
        return await while_healthy(asked, self.is_healthy, HEALTH_SECONDS)

    async def _survives(self, change: Callable[[VLLMControl], Awaitable[None]]) -> bool:
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

    def _require_presence(self) -> None:
        """Raises EngineUnavailable for an engine that an update need not wait for."""
        if self.away and not self.alone:
            raise EngineUnavailable(f"{self.name} is being restarted")

    async def _come_back_at_once(self) -> None:
        """After a death that an update has found."""
        if not self.alone:
            raise EngineUnavailable(f"{self.name} died while it took weights")
        await self._replace()
        self._proven = True  # by the update, before a reply passes the gate, also where a restart before has failed

    async def _restart(self) -> None:
        """Replaces the engine if it does not answer, and lets requests in when it is proven, on the newest weights."""
        async with self._lifecycle:
            if await self._must_be_replaced():
                self.gate.abandon()  # one that hangs would never answer them
                self._proven = self.prove is None
                self._take_what_is_owed()
                await self._replace()
                if self.prove is not None:
                    await self.prove()
                self._proven = self.gate.trusted = True
            while self.prove is not None and self._take_what_is_owed():  # by updates that came while it started
                self._proven = False
                await self.prove()  # which loads them
                self.policy.weights_changed(self.version)
                self._proven = self.gate.trusted = True
            self.away = False

    def _take_what_is_owed(self) -> bool:
        """Makes the weights that it is owed those that are to be served; False where there are none."""
        if self._owed is None:
            return False
        (self.served, self.version), self._owed = self._owed, None
        if self._adapter is not None:
            self._adapter = self.served
        return True

    async def _must_be_replaced(self) -> bool:
        """Whether it has to be brought back before it can be asked again."""
        sound = self._policy is not None and self._proven and self.gate.trusted
        return not sound or not await self._running().is_healthy(HEALTH_SECONDS)

    @abstractmethod
    async def _replace(self) -> None:
        """Has the weights that are to be served served again, after a death. Raises EngineUnavailable."""

    @abstractmethod
    async def _start(self) -> None:
        """Makes `_server` and `_policy` clients of an engine that serves the weights that are to be served."""

    async def _connect(self, name: str) -> None:
        """Makes `policy` a client of the engine that runs. Raises ConfigError if its log-probabilities are before
        temperature."""
        renderer = load_profile(self.model.path).get("renderer")
        model = self.model
        policy = self._running().policy(
            name, tokenizer=model.path, renderer=renderer, vocabulary=model.vocabulary, **self.limits
        )
        try:
            mode = await policy.measure_logprobs_mode()
            if mode != "processed_logprobs":
                raise ConfigError(
                    f"{self._logprobs_option}: the engine's log-probabilities are {mode}, before temperature, and "
                    f"cannot be trained on: {self._logprobs_remedy}"
                )
        except BaseException:
            await policy.aclose()
            raise
        await self._disconnect()
        self._policy = policy
        policy.weights_changed(self.version)
        if self._llm is None:
            self._llm = GatedLLM(self.gate, self._admitting, policy)

    def _admitting(self) -> TokenPolicy:
        """The client for requests that come through the gate."""
        if not self._proven:
            raise EngineUnavailable("vLLM was started again and is being checked")
        return self.policy

    async def _disconnect(self) -> None:
        policy, self._policy = self._policy, None
        if policy is not None:
            await policy.aclose()

    async def _stop(self) -> None:
        """Ends what `_start` began."""
        await self._disconnect()
        if self._server is not None:
            await self._server.aclose()
