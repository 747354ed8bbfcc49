"""Any OpenAI-compatible `/v1/chat/completions` endpoint.

How a history is made valid is in `history.py`, how replies are read in `chat_reply.py`, what is left out for an
endpoint that refuses it in `adaptation.py`. Not covered: token ids and logprobs (`token_policy.py` has them, on vLLM).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from rlm_env.llm.adaptation import Adaptations
from rlm_env.llm.base import (
    LLM,
    ContextOverflow,
    LLMError,
    Sampling,
    ToolSchema,
    ToolsRefused,
)
from rlm_env.llm.chat_reply import read_completion
from rlm_env.llm.error_body import error_in_chat_reply
from rlm_env.llm.history import valid_history
from rlm_env.llm.http import Endpoint, EndpointError, Headers
from rlm_env.llm.output_cap import output_cap
from rlm_env.llm.overflow import overflow_from_message
from rlm_env.llm.preflight import ask_small_question, explained
from rlm_env.llm.refusals import Refusals
from rlm_env.llm.server_kind import has_own_defaults
from rlm_env.messages import UNREADABLE_CALL, Completion, Message, Usage

LIMIT_AT_MOST = re.compile(r"max_(?:completion_)?tokens\S* cannot be greater than [^.]*?=\s*(\d+)")
"""vLLM's message for a `max_tokens` beyond its window."""
UNREADABLE = re.compile(
    r"(?:error|failed to|unable to|could not|cannot) (?:pars\w+|decod\w+|generat\w+|read) "
    r"[^.]{0,20}(?:tool|function)[ _-]?call|malformed (?:tool|function)[ _-]?call"
    r"|failed to parse input at pos|unexpected tokens? remaining in message header"
    r"|model (?:produced|generated|output) [^.]{0,20}(?:invalid|malformed)|could not parse header",
    re.IGNORECASE,
)
"""Words of servers that cannot read the tool call that their model wrote."""
OF_HISTORY = re.compile(r"messages?\W*[\[.]?\d", re.IGNORECASE)
TRIES = 16
"""Upper limit of requests for one completion while what the endpoint refuses is adapted to."""


class OpenAIChat(LLM):
    """`model` at `base_url` (with `/v1`). An async context manager that closes its connections.

    `api_key`, or `api_key_env`: the name of the environment variable that holds it. The key is in no error message
    and in no record. `headers`: further headers of every request, or a function that gives them for each request.
    `context_window`: tokens, if known; recorded, and the upper limit of `max_tokens`. `concurrency`: upper limit of
    requests in flight. `timeout`: seconds for one try. `retries`: after rate limits, server errors and lost
    connections, with growing pauses. `supports_tools=False` for an endpoint without them. `stream`: replies come in
    pieces, for endpoints that send no others and for replies that outlast a proxy; `timeout` then holds for each piece.
    `history`: how earlier replies go back. `valid`: repaired where strict endpoints want that, without their reasoning
    unless the endpoint asks for it; `reasoning`: the same with it; `verbatim`: as they came, for endpoints that know a
    conversation by its messages.

    Parameters that equal the API's default are not sent, unless the server has other defaults. What an endpoint refuses
    is left out from then on (`adaptations` says so). After a few refusals of key, model or quota in a row, requests
    raise EngineRefused.
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
        stream: bool = False,
        headers: Headers | None = None,
        history: Literal["valid", "reasoning", "verbatim"] = "valid",
    ) -> None:
        if api_key_env is not None and api_key is None:
            api_key = os.environ.get(api_key_env)
            if not api_key:
                raise LLMError(f"the environment variable {api_key_env} holds no API key: set it, or name another")
        api_key = api_key.strip() if api_key else None
        self.name = model
        self.context_window = context_window
        self.concurrency = concurrency
        self.supports_tools = supports_tools
        self._learned = Adaptations()
        self._learned.stream = stream
        self._learned.history.tools = supports_tools
        self._learned.history.reasoning = history == "reasoning"
        self._learned.history.verbatim = history == "verbatim"
        self._refusals = Refusals()
        self._own_defaults = False
        self._engine_version: str | None = None
        self._endpoint = Endpoint(
            base_url,
            headers=_all_headers(api_key, headers),
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            secret=api_key,
        )

    @property
    def adaptations(self) -> list[str]:
        return [*self._learned.sentences]

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        sampling = sampling or Sampling()
        if tools and self._learned.tools_refused is not None:
            raise self._tools_refused()
        limit = self._limit(sampling.max_tokens)
        for _ in range(TRIES):
            body = self._body(messages, tools, sampling, limit)
            try:
                reply = await self._send(body)
            except EndpointError as error:
                answer = _answer_in_refusal(error, body)
                if answer is not None:
                    return answer
                limit = self._after_refusal(error, body, limit)
                continue
            if not self._own_defaults and has_own_defaults(reply):
                self._own_defaults = True
                if body.keys() != self._body(messages, tools, sampling, limit).keys():
                    continue  # it was sampled with the server's defaults in place of ours
            return self._read(reply)
        raise LLMError(f"{self._endpoint.public_url} accepts no form of this request")

    async def preflight(self, sampling: Sampling | None = None) -> Usage:
        """Asks one small question, with a tool where tools are supported, and returns what that cost.

        What the endpoint refuses of `sampling` and of the tool is adapted to before anything else is paid. Raises
        EngineRefused, which names the option to correct, EngineUnavailable or another LLMError.
        """
        try:
            return await ask_small_question(self, sampling or Sampling())
        except ContextOverflow:
            return Usage()  # the window is smaller than the limit of the question, but the engine is there
        except LLMError as error:
            raise await explained(error, self._endpoint, self.name) from None

    async def describe(self) -> dict[str, Any]:
        if self._engine_version is None:
            self._engine_version = await self._endpoint.engine_version()
            self._own_defaults |= self._engine_version is not None
        kind = "openai-compatible" if self._engine_version is None else "vllm"
        facts = {"engine": kind, "engine_version": self._engine_version, "adaptations": self.adaptations}
        return {**await super().describe(), **facts}

    def request_headers(self) -> Mapping[str, str]:
        """Headers of the next request alone, equal for all its tries. For subclasses; called once for each body that is
        sent, also where a completion takes several because of what the endpoint refuses."""
        return {}

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    def _body(
        self, messages: list[Message], tools: list[ToolSchema] | None, sampling: Sampling, limit: int
    ) -> dict[str, Any]:
        """The body of a request: model, messages, limit, sampling, tools; without what the endpoint refuses."""
        learned = self._learned
        body: dict[str, Any] = {
            "model": self.name,
            "messages": valid_history(messages, learned.history, tools),
        }
        for name in ("temperature", "top_p"):
            if getattr(sampling, name) != 1 or self._own_defaults:
                body[name] = getattr(sampling, name)
        if learned.limit_field is not None:
            body[learned.limit_field] = limit
        if tools and self.supports_tools:
            body["tools"] = tools
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if learned.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= sampling.extra
        return learned.applied({name: value for name, value in body.items() if value is not None})

    async def _send(self, body: dict[str, Any]) -> Any:
        """Sends a body; raises EndpointError."""
        return await self._endpoint.post(
            "/chat/completions",
            body,
            headers=self.request_headers(),
            stream=bool(body.get("stream")),
            read_failure=error_in_chat_reply,
            final=lambda error: error.status >= 500 and self._is_about_request(error, body),
        )

    def _is_about_request(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Whether an error of a server is a refusal of what was asked, which another try does not change."""
        overflow = overflow_from_message(error.body.message, code=error.body.code)
        answered = overflow is not None or _answer_in_refusal(error, body) is not None
        return answered or self._learned.refuses_tools(error, body)

    def _read(self, reply: Any) -> Completion:
        """The completion in a reply; LLMError where it holds no answer."""
        try:
            completion = read_completion(reply)
        except LLMError as error:
            told = LLMError(f"{self._endpoint.public_url} sent no answer: {error}")
            told.usage = error.usage
            raise told from None
        self._refusals.success()
        if completion.usage.untold:
            self._learned.note_untold_tokens()
        fields = set(completion.returned_fields)
        for call in completion.tool_calls:
            fields |= (call.keys() | call["function"].keys()) - {"id", "type", "function", "name", "arguments"}
        self._learned.note_returned(fields)
        return completion

    def _after_refusal(self, error: EndpointError, body: Mapping[str, Any], limit: int) -> int:
        """Adapts to a refusal, and returns the limit of output tokens for the next try. Raises what cannot be adapted
        to."""
        learned = self._learned
        if learned.refuses_tools(error, body):
            self.supports_tools = False
            raise self._tools_refused() from None
        if learned.learn_stream(error, body):
            return limit
        if error.status in (400, 413, 422, 500):
            field = next((name for name in ("max_tokens", "max_completion_tokens") if name in body), None)
            if field is not None and learned.rename_limit(error, field):
                return limit
            smaller = self._smaller_limit(error, limit)
            if smaller is not None:
                return smaller
        overflow = overflow_from_message(error.body.message, code=error.body.code)
        if overflow is not None and error.status != 429:
            raise overflow from None
        if learned.learn(error, body):
            return limit
        raise self._refusals.judged(error) from None

    def _smaller_limit(self, error: EndpointError, limit: int) -> int | None:
        """The limit that a refusal asks for: of the endpoint, or the room that is left in the window if only prompt and
        output together were too long; None if the prompt alone was, or something else was wrong."""
        at_most = LIMIT_AT_MOST.search(error.detail)
        if at_most is not None and int(at_most[1]) <= limit:
            self.context_window = self.context_window or int(at_most[1])
            return int(at_most[1]) - 1
        overflow = overflow_from_message(error.body.message, code=error.body.code)
        if overflow is None:
            cap = output_cap(error.detail, limit)
            if cap is not None:
                self._learned.limit_output(cap, error)
            return cap
        if overflow.window is None:
            return None
        self.context_window = self.context_window or overflow.window
        if overflow.prompt_tokens is not None:
            room = overflow.window - overflow.prompt_tokens
            return room if 0 < room < limit else None
        # The endpoint counted the output too, but its message has no length of the prompt.
        counted = re.search(rf"\b{limit} (?:output|completion) tokens|max_tokens\W+{limit}\b", error.detail)
        return limit // 4 if counted and limit >= 64 else None

    def _limit(self, wanted: int) -> int:
        """The `max_tokens` to send: what is wanted, or less where endpoint or window have less."""
        bounds = (self._learned.most_output, self.context_window and self.context_window - 1)
        return min([wanted, *(bound for bound in bounds if bound)])

    def _tools_refused(self) -> ToolsRefused:
        """The error for an endpoint that takes no tools."""
        return ToolsRefused(
            f"{self._endpoint.public_url} takes no tools ({self._learned.tools_refused}); "
            'action = "fence" asks for code in fenced blocks'
        )


def _answer_in_refusal(error: EndpointError, body: Mapping[str, Any]) -> Completion | None:
    """The model's own reply, where an endpoint sends it as an error: a tool call that it cannot read, or a reply that
    the limit of tokens ended within its reasoning."""
    failed = error.body.failed_generation is not None or "tool_use_failed" in error.body.code
    if failed or ("tools" in body and UNREADABLE.search(error.detail) and not OF_HISTORY.search(error.detail)):
        text = error.body.failed_generation or ""
        return Completion(text, finish_reason=UNREADABLE_CALL, usage=Usage(calls=1))
    if error.status == 400 and "could not finish the message because max_tokens" in error.detail.lower():
        return Completion("", finish_reason="length", usage=Usage(calls=1))
    return None


def _all_headers(api_key: str | None, headers: Headers | None) -> Headers:
    """The caller's headers and the one with the key."""
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    if callable(headers):
        return lambda: {**key, **headers()}
    return {**key, **(headers or {})}
