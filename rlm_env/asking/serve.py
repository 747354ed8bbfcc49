"""An OpenAI-compatible endpoint: short requests go to the model, long ones to an RLM of the same model.

Served on 127.0.0.1 only. How a request is read is in `chat.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from rlm_env.asking.chat import BadRequest, ChatRequest, as_task, read_request
from rlm_env.events import Event, OnEvent, TurnReplied
from rlm_env.llm.base import ContextOverflow, EngineUnavailable, LLMError
from rlm_env.messages import Usage
from rlm_env.rollout import StopReason
from rlm_env.runs.engines import Engines
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.solving import Questions

HOST = "127.0.0.1"
NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names under which the server may be addressed; another one means that a page of the web is behind the request."""
LARGEST_BODY = 1 << 30
PIECE = 80
"""Characters of a piece of a streamed answer."""
ALIVE_SECONDS = 10.0
"""A streamed request gets a comment this often while it waits, so that no proxy cuts it."""


class _Served(Questions):
    """The environment whose tasks are the questions of clients."""

    name = "serve"


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer to a request, from the model itself or from an RLM."""

    message: dict[str, Any]
    finish_reason: str
    usage: Usage
    rlm: dict[str, Any] | None = None
    """Facts about the rollout, where an RLM has answered; None for the model itself."""


@dataclass(slots=True)
class RLMServer:
    """The endpoint. `NAME:rlm` as the model of a request means the RLM whatever its length, `NAME:llm` the model."""

    engines: Engines
    config: RLMConfig
    threshold: int
    """Characters from which a request goes to the RLM."""
    port: int = 0
    """0: a free one."""
    served: dict[str, int] = field(default_factory=lambda: {"llm": 0, "rlm": 0})
    """Requests that were answered, by who answered."""
    _env: RLMEnv = field(init=False)

    def __post_init__(self) -> None:
        self._env = RLMEnv(_Served(), self.config)

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://{HOST}:{self.port}/v1"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves until the block is left. Raises OSError where the port is taken."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            async with self._env:
                yield
        finally:
            await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        name = self.engines.root.name
        data = [{"id": id, "object": "model", "owned_by": "rlm-env"} for id in (name, f"{name}:rlm", f"{name}:llm")]
        return web.json_response({"object": "list", "data": data})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if (request.host or "").rsplit(":", 1)[0] not in NAMES or "Origin" in request.headers:
            return _error(403, "only programs on this machine are served")
        try:
            if request.content_type != "application/json":
                raise BadRequest("the content type must be application/json")
            asked = read_request(json.loads(await request.read()))
            use_rlm = self._use_rlm(asked)
        except BadRequest as error:
            return _error(400, str(error), param=error.param)
        except (ValueError, RecursionError) as error:
            return _error(400, f"the body is not valid JSON: {error}")
        if asked.stream:
            return await self._stream(request, asked, use_rlm)
        try:
            answer = await self._answer(asked, use_rlm)
        except LLMError as error:
            return _error(*_status(error))
        choice = {"index": 0, "message": answer.message, "finish_reason": answer.finish_reason, "logprobs": None}
        extra = {"rlm": answer.rlm} if answer.rlm else {}
        return web.json_response(
            {**_head(asked, "chat.completion"), "choices": [choice], "usage": _usage(answer), **extra}
        )

    def _use_rlm(self, asked: ChatRequest) -> bool:
        """Raises BadRequest for a model that is not served, and for what an RLM cannot do."""
        name, _, way = asked.model.rpartition(":")
        if asked.model == self.engines.root.name:
            name, way = asked.model, ""
        if name != self.engines.root.name or way not in ("", "rlm", "llm"):
            served = self.engines.root.name
            raise BadRequest(f"the model {asked.model!r} is not served; there is {served}, {served}:rlm, {served}:llm")
        use_rlm = way == "rlm" or (way == "" and asked.size >= self.threshold)
        if use_rlm and asked.only_for_models:
            given = asked.only_for_models[0]
            raise BadRequest(
                f"{given} is for the model alone, and a request of {asked.size:,} characters goes to the RLM "
                f"(from {self.threshold:,} on)",
                given,
            )
        return use_rlm

    async def _answer(self, asked: ChatRequest, use_rlm: bool, on_event: OnEvent | None = None) -> _Answer:
        """Raises LLMError."""
        if not use_rlm:
            completion = await self.engines.root.complete(asked.messages, asked.tools, asked.sampling)
            self.served["llm"] += 1
            message = {key: value for key, value in completion.message().items() if value is not None}
            return _Answer(message, completion.finish_reason or "stop", completion.usage)
        rollout = await self._env.rollout(as_task(asked), self.engines.root, self.engines.sub, on_event=on_event)
        ready = rollout.stop_reason is StopReason.READY
        if rollout.stop_reason is StopReason.ERROR or not (ready or rollout.answer):
            raise LLMError(rollout.error or f"the RLM came to no answer: {rollout.stop_reason}")
        self.served["rlm"] += 1
        usage = Usage()
        usage += rollout.root_usage
        usage += rollout.sub_usage
        facts = {"turns": len(rollout.turns), "sub_calls": len(rollout.sub_calls), "stop_reason": rollout.stop_reason}
        message = {"role": "assistant", "content": rollout.answer}
        return _Answer(message, "stop" if ready else "length", usage, facts)

    async def _stream(self, request: web.Request, asked: ChatRequest, use_rlm: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        notes: asyncio.Queue[str] = asyncio.Queue()

        def note(event: Event) -> None:
            if isinstance(event, TurnReplied):
                notes.put_nowait(f"turn {event.index + 1}")

        answering = asyncio.create_task(self._answer(asked, use_rlm, note))
        try:
            while not answering.done():
                waiting = asyncio.create_task(notes.get())
                await asyncio.wait({answering, waiting}, timeout=ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                text = waiting.result() if waiting.done() else "working"
                waiting.cancel()
                await response.write(f": {text}\n\n".encode())
            for chunk in _chunks(asked, await answering):
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode("ascii"))
        except LLMError as error:
            await response.write(f"data: {json.dumps(_error_body(*_status(error)))}\n\n".encode())
        finally:
            answering.cancel()
        await response.write(b"data: [DONE]\n\n")
        return response


def _chunks(asked: ChatRequest, answer: _Answer) -> list[dict[str, Any]]:
    """The answer as the pieces of a stream."""
    head = _head(asked, "chat.completion.chunk")
    content = answer.message.get("content") or ""
    rest = {key: value for key, value in answer.message.items() if key != "content"}
    if calls := rest.get("tool_calls"):
        rest["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    deltas = [rest, *({"content": content[at : at + PIECE]} for at in range(0, len(content), PIECE))]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}]}
    if answer.rlm:
        last["rlm"] = answer.rlm
    usage = [{**head, "choices": [], "usage": _usage(answer)}] if asked.stream_usage else []
    return [*chunks, last, *usage]


def _head(asked: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


def _usage(answer: _Answer) -> dict[str, int]:
    prompt, completion = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _status(error: LLMError) -> tuple[int, str, str | None]:
    """Status, message and code of an error of an engine."""
    if isinstance(error, ContextOverflow):
        return 400, str(error), "context_length_exceeded"
    return (503 if isinstance(error, EngineUnavailable) else 502), str(error), None


def _error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _error(status: int, message: str, code: str | None = None, param: str | None = None) -> web.Response:
    return web.json_response(_error_body(status, message, code, param), status=status)
