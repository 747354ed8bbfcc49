"""Any OpenAI-compatible `/v1/chat/completions` endpoint.

Not covered: streaming; token ids and logprobs (`token_policy.py` has them, on vLLM).
"""

from __future__ import annotations

import os
import re
from typing import Any

from rlm_env.llm.base import LLM, LLMError, Sampling, ToolSchema
from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.llm.overflow import overflow_from_message
from rlm_env.messages import Completion, Message, Usage

MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id")
"""The fields of a message that are sent. Earlier reasoning is not: most endpoints refuse or drop that field."""
LIMIT_AT_MOST = re.compile(r"max_(?:completion_)?tokens\S* cannot be greater than [^.]*?=\s*(\d+)")
"""vLLM's message for a `max_tokens` beyond its window."""

LIMIT_TRIES = 8
"""Upper limit of requests for one completion while a `max_tokens` is sought that fits the window."""


class OpenAIChat(LLM):
    """`model` at `base_url` (with `/v1`).

    `api_key`, or `api_key_env`: the name of the environment variable that holds it. The key is in no error message
    and in no record. `context_window`: tokens, if known; recorded, and the upper limit of `max_tokens`.
    `concurrency`: upper limit of requests in flight. `timeout`: seconds for one try. `retries`: after rate limits,
    server errors and lost connections, with growing pauses. `supports_tools=False` for an endpoint without them.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "http://127.0.0.1:8000/v1",
        api_key: str | None = None,
        api_key_env: str | None = None,
        context_window: int | None = None,
        concurrency: int = 64,
        timeout: float = 600.0,
        retries: int = 5,
        supports_tools: bool = True,
    ) -> None:
        if api_key_env is not None and api_key is None:
            api_key = os.environ.get(api_key_env)
            if not api_key:
                raise LLMError(f"the environment variable {api_key_env} holds no API key: set it, or name another")
        self.name = model
        self.context_window = context_window
        self.concurrency = concurrency
        self.supports_tools = supports_tools
        self._limit_field = "max_tokens"
        self._engine_version: str | None = None
        self._endpoint = Endpoint(
            base_url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            secret=api_key,
        )

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        sampling = sampling or Sampling()
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{key: m[key] for key in MESSAGE_FIELDS if key in m} for m in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if tools and self.supports_tools:
            body["tools"] = tools
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        body |= sampling.extra
        limit = sampling.max_tokens
        if self.context_window is not None:
            limit = min(limit, self.context_window - 1)
        reply = await self._post({name: value for name, value in body.items() if value is not None}, limit)
        try:
            return _completion(reply)
        except (LookupError, TypeError, AttributeError):
            raise LLMError(f"{self._endpoint.public_url} sent a completion of unknown shape") from None

    async def describe(self) -> dict[str, Any]:
        if self._engine_version is None:
            self._engine_version = await self._endpoint.engine_version()
        kind = "openai-compatible" if self._engine_version is None else "vllm"
        return {**await super().describe(), "engine": kind, "engine_version": self._engine_version}

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _post(self, body: dict[str, Any], limit: int) -> Any:
        """Sends the request; sends it again with a smaller limit, or the limit under another name, if a refusal asks
        for that."""
        for _ in range(LIMIT_TRIES):
            field = self._limit_field
            try:
                return await self._endpoint.post("/chat/completions", {field: limit, **body})
            except EndpointError as error:
                if error.status not in (400, 413, 422):
                    raise
                if field == "max_tokens" and "max_completion_tokens" in error.detail:
                    self._limit_field = "max_completion_tokens"
                    continue
                smaller = self._smaller_limit(error.detail, limit)
                if smaller is None:
                    raise overflow_from_message(error.detail) or error from None
                limit = smaller
        raise LLMError(f"{self._endpoint.public_url} accepts no limit of output tokens")

    def _smaller_limit(self, detail: str, limit: int) -> int | None:
        """The room that is left in the window if only prompt and output together were too long; None if the prompt
        alone was, or something else was wrong."""
        at_most = LIMIT_AT_MOST.search(detail)
        if at_most is not None and int(at_most[1]) <= limit:
            self.context_window = self.context_window or int(at_most[1])
            return int(at_most[1]) - 1
        overflow = overflow_from_message(detail)
        if overflow is None or overflow.window is None:
            return None
        self.context_window = self.context_window or overflow.window
        if overflow.prompt_tokens is not None:
            room = overflow.window - overflow.prompt_tokens
            return room if 0 < room < limit else None
        # The endpoint counted the output too, but its message has no length of the prompt.
        return limit // 4 if str(limit) in detail and limit >= 64 else None


def _completion(reply: dict[str, Any]) -> Completion:
    choice = reply["choices"][0]
    message = choice["message"]
    usage = reply.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    refusal = message.get("refusal")
    return Completion(
        text=message.get("content") or refusal or "",
        tool_calls=[_tool_call(call) for call in message.get("tool_calls") or ()],
        reasoning=message.get("reasoning_content") or message.get("reasoning") or None,
        finish_reason="refusal" if refusal else choice.get("finish_reason"),
        usage=Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, cached, calls=1),
    )


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["function"]["name"], "arguments": call["function"].get("arguments") or ""}
    return {"id": call.get("id") or "", "type": "function", "function": function}
