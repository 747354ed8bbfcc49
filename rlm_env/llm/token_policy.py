"""Token-in/token-out on a vLLM: a trainer gets exactly the ids that the engine sampled, with their logprobs.

Batches are sent as one request, and single requests that come at the same time are joined. Not covered: starting the
engine (`vllm/server.py`), endpoints that take and return text only (`openai_chat.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rlm_env.llm.base import LLM, ContextOverflow, LLMError, Request, Sampling, ToolSchema
from rlm_env.llm.chat_tokens import ChatTokens, Prompt, RendererSpec
from rlm_env.llm.coalesce import Coalescer
from rlm_env.llm.http import Endpoint
from rlm_env.llm.token_batches import TokenBatches, TokenJob, probe_logprobs_mode
from rlm_env.llm.weight_versions import within
from rlm_env.messages import Completion, Message, Usage

THREAD_CHARS = 50_000
"""More characters than this are rendered in a thread, which keeps the event loop free."""
THREAD_COMPLETIONS = 64
"""More completions than this are parsed in a thread."""
SMALL_BATCH = 32
"""Batches below this size are joined with others, like single requests."""


class TokenPolicy(LLM):
    """A model on a vLLM at `base_url` (with `/v1`), served as `model`; `model_path` has its tokenizer.

    `renderer`: see `RendererSpec`; a fine-tune needs the name of its family's renderer. A renderer that drops
    earlier reasoning (Qwen3's, at a new user message) makes a conversation fork there; its setting
    `thinking_retention="all"` keeps it whole.
    `context_window`: tokens of prompt and completion together; None if unknown (`connect` asks the engine).
    `max_batch`: upper limit of prompts in one request. `coalesce_ms`: how long a single request waits for others
    with equal settings (0: not at all). Only requests with `max_tokens` up to `coalesce_max_tokens` wait, since a
    request returns with its slowest prompt: measured on a 1M-parameter model with 32 conversations at once, joining
    is up to twice as fast for replies of a few tokens, equal at a limit of 64 and a third slower at 128 and more.
    `batches=False`: one prompt per request.
    `concurrency`: upper limit of requests in flight. `timeout`: seconds for one of them. `retries`, `hint`: see
    `Endpoint`. `engine_version`, `logprobs_mode`: recorded by `describe`, which asks for the version if it is None.
    `vocabulary`: sampled ids are below it, otherwise a request fails; None: not known.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        model_path: str | os.PathLike[str],
        *,
        renderer: RendererSpec = None,
        context_window: int | None = None,
        concurrency: int = 256,
        max_batch: int = 1024,
        coalesce_ms: float = 3.0,
        coalesce_max_tokens: int = 32,
        batches: bool = True,
        timeout: float = 1800.0,
        retries: int = 2,
        engine_version: str | None = None,
        logprobs_mode: str | None = None,
        hint: str | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self.name = model
        self.context_window = context_window
        self.concurrency = concurrency
        self.tokens = ChatTokens(model_path, renderer)
        self.supports_tools = self.tokens.supports_tools
        self._endpoint = Endpoint(base_url, concurrency=concurrency, timeout=timeout, retries=retries, hint=hint)
        self._engine = TokenBatches(
            self._endpoint,
            model,
            stop_ids=self.tokens.stop_token_ids,
            largest=max_batch,
            batches=batches,
            vocabulary=vocabulary,
        )
        self._coalesce_max_tokens = coalesce_max_tokens if coalesce_ms > 0 else 0
        self._coalescer = Coalescer(self._engine.run, seconds=coalesce_ms / 1000, largest=max_batch)
        self.logprobs_mode = logprobs_mode
        """As vLLM names it: "processed_logprobs" are after temperature, "raw_logprobs" before. None: not known."""
        self._engine_version = engine_version

    @classmethod
    async def connect(
        cls, base_url: str, model_path: str | os.PathLike[str], *, model: str | None = None, **options: Any
    ) -> Self:
        """A policy on a vLLM that runs already. Asks it for the model's name, its window and the engine's version, and
        measures whether its logprobs are after temperature. Options as for the class. Raises EngineUnavailable or
        another LLMError."""
        endpoint = Endpoint(base_url, retries=options.get("retries", 2), timeout=120)
        try:
            cards = (await endpoint.get("/models"))["data"]
            card = next((card for card in cards if model in (None, card["id"])), None)
            if card is None:
                names = ", ".join(card["id"] for card in cards)
                raise LLMError(f"{endpoint.public_url} serves no model {model!r}; it serves {names}")
            options.setdefault("engine_version", await endpoint.engine_version())
            options.setdefault("context_window", card.get("max_model_len"))
        except (LookupError, TypeError, AttributeError):
            raise LLMError(f"{endpoint.public_url} sent a list of models of unknown shape") from None
        finally:
            await endpoint.aclose()
        policy = cls(card["id"], base_url, model_path, **options)
        if policy.logprobs_mode is None:
            try:
                await policy.measure_logprobs_mode()
            except BaseException:
                await policy.aclose()
                raise
        return policy

    @property
    def base_url(self) -> str:
        """Address of the OpenAI-compatible routes, with `/v1`, without user and password."""
        return self._endpoint.public_url

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        (result,) = await self.complete_many([Request(messages, tools, sampling)])
        if isinstance(result, LLMError):
            raise result
        return result

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        """Answers a batch: rendered together, and sent as one request for each sampling."""
        size = sum(len(str(message.get("content", ""))) for request in requests for message in request.messages)
        prompts = await _maybe_in_thread(
            size > THREAD_CHARS, self.tokens.prompts, [(request.messages, request.tools) for request in requests]
        )
        jobs = [self._job(prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
        groups: dict[Any, list[TokenJob]] = {}
        for index, job in enumerate(jobs):
            if job.error is None:
                groups.setdefault(index if job.seeded else job.batch_key, []).append(job)
        await asyncio.gather(*(self._run(group) for group in groups.values()))
        return await _maybe_in_thread(len(jobs) > THREAD_COMPLETIONS, self._results, jobs, prompts, requests)

    def count_tokens(self, messages: list[Message], tools: list[ToolSchema] | None = None) -> int:
        return len(self.tokens.prompt(messages, tools).ids)

    async def describe(self) -> dict[str, Any]:
        if self._engine_version is None:
            self._engine_version = await self._endpoint.engine_version()
        return {
            **await super().describe(),
            "engine": "vllm",
            "engine_version": self._engine_version,
            "logprobs_mode": self.logprobs_mode,
            **self.tokens.describe(),
        }

    async def measure_logprobs_mode(self) -> str:
        """Asks the engine what its logprobs are, and keeps that as `logprobs_mode`. Raises LLMError."""
        prompt = self.tokens.prompt([{"role": "user", "content": "Hello"}], None)
        self.logprobs_mode = await probe_logprobs_mode(self._endpoint, self.name, prompt.ids)
        return self.logprobs_mode

    async def raw_completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's own reply to a request to `/v1/completions`, for what `complete` does not offer, such as
        log-probabilities of a given text. `model` is filled in. Raises EndpointError or another LLMError."""
        return await self._endpoint.post("/completions", {"model": self.name, **body})

    def weights_changed(self, version: int, tokens: Mapping[str, int] | None = None) -> int:
        """The engine has the weights `version` from now on, which replies then record. `tokens`: what each request in
        flight has sampled before, see `WeightVersions.changed`. Returns how many prompts go on under them."""
        return self._engine.versions.changed(version, tokens)

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    def _job(self, prompt: Prompt, request: Request) -> TokenJob:
        """The request for a rendered prompt, with the room that the window leaves; too long a one is failed here."""
        sampling = request.sampling or Sampling()
        window = self.context_window
        job = TokenJob(prompt.ids, sampling, sampling.max_tokens)
        if window is not None:
            job.room = min(job.room, window - len(prompt.ids))
            if job.room <= 0:
                job.error = ContextOverflow(len(prompt.ids), window)
        if "chat_template_kwargs" in sampling.extra:  # they have no effect on an engine that gets ids
            job.error = LLMError("chat_template_kwargs belong into the policy's renderer: {'name': ..., ...}")
        return job

    async def _run(self, group: list[TokenJob]) -> None:
        """Sends a group at once, or lets a small one wait some milliseconds for others."""
        longest = max(job.room for job in group)
        if group[0].seeded or len(group) >= SMALL_BATCH or longest > self._coalesce_max_tokens:
            await self._engine.run(group)
        else:
            key = group[0].batch_key
            await asyncio.gather(*(self._coalescer.submit(key, job) for job in group))

    def _results(
        self, jobs: list[TokenJob], prompts: list[Prompt], requests: Sequence[Request]
    ) -> list[Completion | LLMError]:
        return [
            job.error or self._completion(job, prompt, request.tools)
            for job, prompt, request in zip(jobs, prompts, requests, strict=True)
        ]

    def _completion(self, job: TokenJob, prompt: Prompt, tools: list[ToolSchema] | None) -> Completion:
        """The completion of a job, with ids, logprobs and usage, and its text parsed."""
        completion = Completion(
            text="",
            finish_reason=job.finish_reason,
            prompt_ids=job.prompt_ids,
            completion_ids=job.completion_ids,
            logprobs=job.logprobs,
            usage=Usage(len(job.prompt_ids), len(job.completion_ids), job.cached_tokens, calls=1),
            history_key=prompt.history_key,
            weight_versions=within(job.stretches, len(job.completion_ids)) or None,
        )
        self.tokens.parse(completion, tools)
        return completion


async def _maybe_in_thread(large: bool, function: Any, *args: Any) -> Any:
    return await asyncio.to_thread(function, *args) if large else function(*args)
