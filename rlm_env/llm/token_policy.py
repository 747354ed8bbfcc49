"""Token-in/token-out on a vLLM: what the engine sampled, with its logprobs, is what a trainer gets.

Covered: rendering with the model's own renderer, the window, exact extension of conversations, batches that
travel as one request, single requests that are joined on the way. Not covered: starting the engine
(`vllm_server.py`), endpoints that speak text only (`openai_chat.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any, Self

from rlm_env.llm.base import LLM, ContextOverflow, LLMError, Request, Sampling, ToolSchema
from rlm_env.llm.chat_tokens import ChatTokens, Prompt, RendererSpec
from rlm_env.llm.coalesce import Coalescer
from rlm_env.llm.http import Endpoint
from rlm_env.llm.token_batches import Job, TokenBatches, probe_logprobs_mode
from rlm_env.messages import Completion, Message, Usage

THREAD_CHARS = 50_000
"""More characters than this are rendered in a thread, so that the event loop goes on."""
THREAD_COMPLETIONS = 64
"""More completions than this are parsed in a thread."""
SMALL_BATCH = 32
"""Batches below this size wait for company like single requests."""


class TokenPolicy(LLM):
    """A model on a vLLM at `base_url` (with `/v1`), served as `model`; `model_path` has its tokenizer.

    `renderer`: see `RendererSpec`; a fine-tune needs the name of its family's renderer. A renderer that drops
    earlier reasoning (Qwen3's, at a new user message) makes a conversation fork there; its setting
    `thinking_retention="all"` keeps it whole.
    `context_window`: tokens of prompt and completion together; None where it is not known (`connect` asks).
    `max_batch`: most prompts in one request. `coalesce_ms`: how long a single request waits for others with equal
    settings (0: not at all). Only those with `max_tokens` up to `coalesce_max_tokens` wait, since a request returns
    with its slowest prompt: measured on a 1M-parameter model with 32 conversations at once, joining is up to twice
    as fast for replies of a few tokens, equal at a limit of 64 and a third slower at 128 and more.
    `batches=False`: single requests only.
    `concurrency`: most requests in flight. `timeout`: seconds for one of them. `retries`, `hint`: see `Endpoint`.
    `engine`, `logprobs_mode`: recorded by `describe`.
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
        engine: str | None = None,
        logprobs_mode: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.name = model
        self.context_window = context_window
        self.concurrency = concurrency
        self.tokens = ChatTokens(model_path, renderer)
        self.supports_tools = self.tokens.supports_tools
        self._endpoint = Endpoint(base_url, concurrency=concurrency, timeout=timeout, retries=retries, hint=hint)
        self._engine = TokenBatches(
            self._endpoint, model, stop_ids=self.tokens.stop_token_ids, largest=max_batch, batches=batches
        )
        self._coalesce_max_tokens = coalesce_max_tokens if coalesce_ms > 0 else 0
        self._coalescer = Coalescer(self._engine.run, seconds=coalesce_ms / 1000, largest=max_batch)
        self._facts = {"engine": engine, "logprobs_mode": logprobs_mode}

    @classmethod
    async def connect(
        cls, base_url: str, model_path: str | os.PathLike[str], *, model: str | None = None, **options: Any
    ) -> Self:
        """A policy on a vLLM that runs already: asks for its model's name and window, its version, and whether its
        logprobs are after temperature. Options as for the class. Raises EngineUnavailable or another LLMError."""
        endpoint = Endpoint(base_url, retries=options.get("retries", 2), timeout=120)
        root = Endpoint(endpoint.base_url.removesuffix("/v1"), retries=0, timeout=30)
        try:
            cards = (await endpoint.get("/models"))["data"]
            card = next((card for card in cards if model in (None, card["id"])), None)
            if card is None:
                names = ", ".join(card["id"] for card in cards)
                raise LLMError(f"{endpoint.public_url} serves no model {model!r}; it serves {names}")
            with contextlib.suppress(LLMError):  # another engine with vLLM's routes
                options.setdefault("engine", f"vllm {(await root.get('/version'))['version']}")
            options.setdefault("context_window", card.get("max_model_len"))
            policy = cls(card["id"], base_url, model_path, **options)
            if policy._facts["logprobs_mode"] is None:
                prompt = policy.tokens.prompt([{"role": "user", "content": "Hello"}], None)
                policy._facts["logprobs_mode"] = await probe_logprobs_mode(endpoint, policy.name, prompt.ids)
        finally:
            await endpoint.aclose()
            await root.aclose()
        return policy

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        (result,) = await self.complete_many([Request(messages, tools, sampling)])
        if isinstance(result, LLMError):
            raise result
        return result

    async def complete_many(self, requests: Sequence[Request]) -> list[Completion | LLMError]:
        size = sum(len(str(message.get("content", ""))) for request in requests for message in request.messages)
        prompts = await _maybe_in_thread(
            size > THREAD_CHARS, self.tokens.prompts, [(request.messages, request.tools) for request in requests]
        )
        jobs = [self._job(prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
        groups: dict[Any, list[Job]] = {}
        for index, job in enumerate(jobs):
            if job.error is None:
                groups.setdefault(index if job.seeded else job.batch_key, []).append(job)
        await asyncio.gather(*(self._run(group) for group in groups.values()))
        return await _maybe_in_thread(len(jobs) > THREAD_COMPLETIONS, self._results, jobs, prompts, requests)

    def count_tokens(self, messages: list[Message], tools: list[ToolSchema] | None = None) -> int:
        return len(self.tokens.prompt(messages, tools).ids)

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "base_url": self._endpoint.public_url,
            **self._facts,
            **self.tokens.describe(),
        }

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    def _job(self, prompt: Prompt, request: Request) -> Job:
        sampling = request.sampling or Sampling()
        window = self.context_window
        job = Job(prompt.ids, sampling, sampling.max_tokens)
        if window is not None:
            job.room = min(job.room, window - len(prompt.ids))
            if job.room <= 0:
                job.error = ContextOverflow(len(prompt.ids), window)
        if "chat_template_kwargs" in sampling.extra:  # the engine, which gets ids, would not notice them
            job.error = LLMError("chat_template_kwargs belong into the policy's renderer: {'name': ..., ...}")
        return job

    async def _run(self, group: list[Job]) -> None:
        longest = max(job.room for job in group)
        if group[0].seeded or len(group) >= SMALL_BATCH or longest > self._coalesce_max_tokens:
            await self._engine.run(group)
        else:
            key = group[0].batch_key
            await asyncio.gather(*(self._coalescer.submit(key, job) for job in group))

    def _results(
        self, jobs: list[Job], prompts: list[Prompt], requests: Sequence[Request]
    ) -> list[Completion | LLMError]:
        return [
            job.error or self._completion(job, prompt, request.tools)
            for job, prompt, request in zip(jobs, prompts, requests, strict=True)
        ]

    def _completion(self, job: Job, prompt: Prompt, tools: list[ToolSchema] | None) -> Completion:
        completion = Completion(
            text="",
            finish_reason=job.finish_reason,
            prompt_ids=job.prompt_ids,
            completion_ids=job.completion_ids,
            logprobs=job.logprobs,
            usage=Usage(len(job.prompt_ids), len(job.completion_ids), job.cached_tokens, calls=1),
            history_key=prompt.history_key,
        )
        self.tokens.parse(completion, tools)
        return completion


async def _maybe_in_thread(large: bool, function: Any, *args: Any) -> Any:
    return await asyncio.to_thread(function, *args) if large else function(*args)
