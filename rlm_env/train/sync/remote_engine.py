"""A vLLM that somebody else started, on this machine or another, and that takes the weights of a training run.

It reads them from the run's folder, so both see that under the same path. What it lacks is found before the run begins,
each with the remedy. When it has died, whoever started it starts it again; it then gets the run's weights anew.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.llm.vllm.control import VLLMControl
from rlm_env.llm.vllm.worker import WorkerExtension
from rlm_env.runs.errors import ConfigError
from rlm_env.train.sync.engine import ADAPTER, HEALTH_SECONDS, TrainEngine
from rlm_env.train.sync.same_tokenizer import require_same_tokenizer

ANSWER_SECONDS = 120.0
"""For each of the questions at the start; a vLLM looks through its packages to answer one of them."""
EXTENSION = f"{WorkerExtension.__module__}.{WorkerExtension.__qualname__}"


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a vLLM tells of itself."""

    served_name: str
    window: int | None
    version: str | None
    dtype: str
    """As torch names it: `bfloat16`, `float32`, ..."""
    adapter_rank: int | None
    """The largest rank of an adapter that it takes while it runs; None: it takes none."""
    on_cpu: bool
    extension: str
    """The class that its workers were extended with."""


class RemoteEngine(TrainEngine):
    """`base_url`: with `/v1`. `served`: the model's name there; None: the one that it serves. The other arguments as
    for `TrainEngine`; its type is the engine's own."""

    _logprobs_option: ClassVar[str] = "engines.base_url"
    _logprobs_remedy: ClassVar[str] = "start it with --logprobs-mode processed_logprobs"

    def __init__(
        self,
        model: str | os.PathLike[str],
        base_url: str,
        served: str | None = None,
        *,
        name: str,
        lora_rank: int | None = None,
    ) -> None:
        super().__init__(model, name=name, dtype="auto", lora_rank=lora_rank)
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._served_name = served

    async def load(self, folder: Path, version: int) -> None:
        await self._telling_of(folder, super().load, version)

    async def load_adapter(self, folder: Path, version: int) -> None:
        await self._telling_of(folder, super().load_adapter, version)

    async def _telling_of(self, folder: Path, load: Callable[[Path, int], Awaitable[None]], version: int) -> None:
        """A refusal names what is most likely wrong with an engine elsewhere."""
        try:
            await load(folder, version)
        except EngineUnavailable:
            raise
        except LLMError as error:
            raise LLMError(
                f"{error}. An engine by URL reads the weights from {folder}: it must see the run's folder under the "
                "same path (a shared file system), and serve the run's model"
            ) from error

    async def _must_be_replaced(self) -> bool:
        return True  # one that answers may have been started again meanwhile, on its first weights

    async def _replace(self) -> None:
        """Connects anew and gives it the run's weights."""
        if not await self._running().is_healthy(HEALTH_SECONDS):
            raise EngineUnavailable(f"{self.name} at {self._url} does not answer: start it again")
        await self._end_what_it_does()
        await self._stop()
        try:
            await self._start()
            if self._adapter is None:
                await self._watched(self._running().reload_weights(self.served))
            else:
                await self._watched(self._running().load_adapter(ADAPTER, self._adapter))
                await self._connect(ADAPTER)
        except BaseException:
            await self._disconnect()
            raise
        self.restarts += 1

    async def _end_what_it_does(self) -> None:
        """One that has only hung still has its requests, which nobody waits for, and stands still if that was in an
        update."""
        try:
            await self._watched(self._running().pause("abort"))
            await self._watched(self._running().resume())
        except EngineUnavailable:
            raise
        except LLMError:
            return  # without these routes it cannot stand still

    async def _start(self) -> None:
        """Checks that it can be trained with, and connects. Raises ConfigError and EngineUnavailable."""
        facts = await read_facts(self._url, self._served_name, self.name)
        self.dtype, self.counts_tokens = facts.dtype, facts.extension == EXTENSION
        self._check(facts)
        self._server = VLLMControl(
            self._url,
            facts.served_name,
            self.model.path,
            hint=f"the engine {self.name} at {self._url}",
            max_model_len=facts.window,
            engine_version=facts.version,
            repacks_heads=facts.extension == EXTENSION and facts.on_cpu,
        )
        await self._check_tokens()
        await self._connect(facts.served_name)

    def _check(self, facts: RemoteFacts) -> None:
        """Raises ConfigError where its weights or adapters cannot be changed as the run needs it."""
        if facts.on_cpu and facts.extension != EXTENSION:
            raise self._unfit(
                "is vLLM's CPU build, which keeps an old copy of the vocabulary head",
                f"start it with --worker-extension-cls {EXTENSION}",
            )
        if self._lora_rank is not None and (facts.adapter_rank or 0) < self._lora_rank:
            raise self._unfit(
                f"takes no adapter of rank {self._lora_rank} while it runs",
                f"start it with --enable-lora --max-lora-rank {self._lora_rank} and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            )

    async def _check_tokens(self) -> None:
        """Raises ConfigError where it reads token ids otherwise than the model that is trained."""
        name, folder = self._running().served_name, self.model.path
        ask = partial(
            require_same_tokenizer, model=name, folder=folder, who=self._who, remedy=f"let it serve {self.model.name}"
        )
        await ask_once(self._url, ask)

    @property
    def _who(self) -> str:
        return f"engines.{self.name}: the vLLM at {self._url}"

    def _unfit(self, what: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self._who} {what}: {remedy}")


async def ask_once(url: str, question: Callable[[Endpoint], Awaitable[Any]]) -> Any:
    """The answer of a server to a question that is asked once."""
    endpoint = Endpoint(url, retries=1, timeout=ANSWER_SECONDS)
    try:
        return await question(endpoint)
    finally:
        await endpoint.aclose()


async def read_facts(url: str, served_name: str | None, name: str) -> RemoteFacts:
    """Asks the vLLM at `url` (without `/v1`) what it is. Raises ConfigError where it is none whose weights can be
    changed, EngineUnavailable where nothing answers."""
    where = f"engines.{name}: the server at {url}"
    try:
        cards = (await ask_once(url, lambda endpoint: endpoint.get("/v1/models")))["data"]
        card = next((card for card in cards if served_name in (None, card["id"])), None)
        if card is None:
            names = ", ".join(card["id"] for card in cards)
            raise ConfigError(f"{where} serves no model {served_name!r}; it serves {names}")
        version = await Endpoint(f"{url}/v1").engine_version()
        info = await ask_once(url, lambda endpoint: endpoint.get("/server_info?config_format=json"))
        return _facts(info, card, version)
    except EndpointError as error:
        if error.status in (401, 403):
            raise ConfigError(f"{where} asks for a key: start it without --api-key, in a network of your own") from None
        if error.status != 404:
            raise ConfigError(f"{where} answers with an error: {error}") from None
        raise ConfigError(
            f"{where} has no routes to change its weights: start vLLM with VLLM_SERVER_DEV_MODE=1, in a network of "
            'your own, since these routes ask for no key; or set weights = "fixed"'
        ) from None
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where} is no vLLM of a version that is known: it tells nothing of its {error}") from None


def _facts(info: Mapping[str, Any], card: Mapping[str, Any], version: str | None) -> RemoteFacts:
    """From the reply of `/server_info`, the model's card and the version."""
    config, environment = info["vllm_config"], info["vllm_env"]
    lora = config["lora_config"] if environment.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") else None
    return RemoteFacts(
        served_name=card["id"],
        window=card.get("max_model_len"),
        version=version,
        dtype=str(config["model_config"]["dtype"]).removeprefix("torch."),
        adapter_rank=int(lora["max_lora_rank"]) if lora else None,
        on_cpu=str(config["device_config"]["device"]).startswith("cpu"),
        extension=str(config["parallel_config"]["worker_extension_cls"]),
    )
