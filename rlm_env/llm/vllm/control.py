"""The routes of a running vLLM that change or question it, whoever started it: weights, adapters, caches, statistics.

They exist where it was started with VLLM_SERVER_DEV_MODE=1, as `VLLMServer` does (`server.py`). Requests for text are
those of `TokenPolicy`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.llm.vllm.model_folder import find_model

if TYPE_CHECKING:
    from rlm_env.llm.token_policy import TokenPolicy

CONTROL_TIMEOUT = 600.0
"""Seconds for a change of the engine's weights."""


class VLLMControl:
    """A client of the vLLM at `root_url`, which serves a model as `served_name`.

    `hint`: where to look when it fails, for messages. `tokenizer`: the model's folder here. `repacks_heads`: it is the
    CPU build with `worker.py:WorkerExtension`, whose heads are packed anew after a change of weights.
    The methods raise LLMError if the engine refuses, EngineUnavailable if it is dead.
    """

    def __init__(
        self,
        root_url: str,
        served_name: str,
        tokenizer: Path,
        *,
        hint: str,
        max_model_len: int | None = None,
        engine_version: str | None = None,
        logprobs_mode: str | None = None,
        repacks_heads: bool = False,
    ) -> None:
        self.root_url = root_url
        """Address of the other routes."""
        self.served_name = served_name
        self.max_model_len = max_model_len
        """The window in tokens."""
        self.repacks_heads = repacks_heads
        self._tokenizer = tokenizer
        self._hint = hint
        self._engine_version = engine_version
        self._logprobs_mode = logprobs_mode
        self._control = Endpoint(root_url, retries=0, timeout=CONTROL_TIMEOUT, hint=hint)

    @property
    def base_url(self) -> str:
        """Address of the OpenAI-compatible routes, with `/v1`."""
        return f"{self.root_url}/v1"

    @property
    def alive(self) -> bool:
        """False once it is known that it has ended; True says nothing of one that somebody else started."""
        return True

    def policy(
        self, name: str | None = None, *, tokenizer: str | os.PathLike[str] | None = None, **options: Any
    ) -> TokenPolicy:
        """A token-in/token-out policy on this engine. `name`: an adapter that it serves; None: the model itself.
        `tokenizer`: a folder, if not the served one. Other options as for `TokenPolicy`."""
        from rlm_env.llm.token_policy import TokenPolicy

        known = {
            "logprobs_mode": self._logprobs_mode,
            "engine_version": self._engine_version,
            "context_window": self.max_model_len,
            "hint": self._hint,
        }
        folder = self._tokenizer if tokenizer is None else tokenizer
        return TokenPolicy(name or self.served_name, self.base_url, folder, **{**known, **options})

    async def is_healthy(self, within: float = 30.0) -> bool:
        """Whether the engine reports within so many seconds that it is healthy."""
        try:
            async with asyncio.timeout(within):
                await self._control.get_raw("/health")
        except (LLMError, TimeoutError):
            return False
        return self.alive

    async def statistics(self) -> str:
        """Its counters and gauges, in the text format of Prometheus."""
        return (await self._control.get_raw("/metrics")).decode()

    async def pause(self, mode: Literal["keep", "abort"] = "keep") -> None:
        """Makes the engine stand still until `resume`, and drops its keys and values. Requests in flight stay as they
        are with `keep`, and go on later, after their prompt and tokens are computed again; with `abort` they end with
        the tokens that they have. New ones wait."""
        await self._call(f"/pause?mode={mode}")

    async def resume(self) -> None:
        """The end of a pause."""
        await self._call("/resume")

    async def tokens_in_flight(self) -> dict[str, int] | None:
        """Tokens sampled so far by vLLM's own id of each request in flight, only while paused; None where the engine
        was started without `worker.py:WorkerExtension`."""
        try:
            reply = await self._call("/collective_rpc", {"method": "tokens_so_far"})
        except EngineUnavailable:
            raise
        except LLMError:
            return None
        found: dict[str, int] = {}
        for worker in json.loads(reply)["results"]:
            found |= {name: max(count, found.get(name, 0)) for name, count in worker.items()}
        return found

    async def world_size(self) -> int:
        """Processes that hold its weights, over all its replicas."""
        return int((await self._control.get("/get_world_size"))["world_size"])

    async def reload_weights(self, path: str | os.PathLike[str]) -> None:
        """Replaces the weights by those in another folder of the same architecture, in place.

        Requests in flight continue on the new weights (`pause` before, where it is to be known from which token on).
        Empties the prefix cache, which holds keys and values of the old ones.
        """
        folder = find_model(path)
        await self._call("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder.path)}})
        if self.repacks_heads:
            await self._call("/collective_rpc", {"method": "refresh_heads"})
        await self.reset_prefix_cache()

    async def load_adapter(self, name: str, path: str | os.PathLike[str]) -> None:
        """Serves the model with the LoRA adapter in a peft folder under `name`, in place of an earlier one of that
        name. Needs `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."""
        adapter = {"lora_name": name, "lora_path": os.fspath(path), "load_inplace": True}
        await self._call("/v1/load_lora_adapter", adapter)
        await self.reset_prefix_cache()

    async def reset_prefix_cache(self) -> None:
        """Drops the keys and values of all prompts. Requests in flight are computed again from their beginning: vLLM
        does not empty the cache while they hold blocks of it."""
        reply = await self._call("/reset_prefix_cache?reset_running_requests=true")
        if json.loads(reply or b"{}").get("success") is not True:
            raise LLMError(f"vLLM did not empty its prefix cache: {reply.decode()[:300]}; {self._hint}")

    async def warm_up(self, prompts: int = 64) -> None:
        """Runs one small batch, so that the first rollout does not pay for what is set up on first use."""
        body = {"model": self.served_name, "prompt": [[0, 1, 2, 3]] * prompts, "max_tokens": 2, "logprobs": 0}
        await self._call("/v1/completions", body)

    async def aclose(self) -> None:
        """Closes connections."""
        await self._control.aclose()

    async def _call(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """The reply to a POST request to a route of vLLM itself."""
        try:
            return await self._control.post_raw(path, body)
        except EndpointError as error:
            raise LLMError(f"vLLM refused {path}: {error.status} {error.detail}; {self._hint}") from None
