"""The HTTP client for engines: one pooled session per event loop, retries, and errors of one line without secrets.

Every request to an engine goes through `Endpoint`: chat (`openai_chat.py`), token ids (`token_policy.py`), and the
control routes of our own vLLM (`vllm/server.py`). When to try again is in `retries.py`, the shapes of errors are in
`error_body.py`, streams in `stream.py`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.llm.error_body import ErrorBody, error_in_reply, read_error
from rlm_env.llm.proxy import proxy_for
from rlm_env.llm.retries import LONGEST_RETRY_AFTER, LONGEST_WAIT, is_passing, retry_after, wait_in_words
from rlm_env.llm.stream import StreamBroken, join_stream

KEEP_ALIVE = 4.0
"""Seconds for which an idle connection is kept. uvicorn, and so vLLM, closes one after 5."""
VERSION_TIMEOUT = 10.0
"""Seconds that an endpoint gets to name its version."""
ERROR_BYTES = 100_000
"""Bytes of an error's body that are read."""

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Headers of every request, or a function that is called for each request, for keys that expire."""
ResultT = TypeVar("ResultT")


class EndpointError(LLMError):
    """The endpoint answered with an error: by its status, or in a body of status 200."""

    def __init__(self, message: str, status: int, detail: str, body: ErrorBody | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        """The server's message, without secrets."""
        self.body = body or ErrorBody(detail, detail)
        self.retry_after = 0.0
        """Seconds that the endpoint asks to wait before the next try."""


class NoReply(LLMError):
    """The endpoint was silent until the time-out. It may be busy, or hang."""


class Endpoint:
    """A client of one base URL. Safe to use from several event loops, one after the other or at once.

    `timeout`: seconds for one try, from sending to the last byte; of a stream, for each of its pieces. `retries`: tries
    after the first one. `secret`: replaced by asterisks in every error message, as are the values of `headers`.
    `hint`: appended to the message of EngineUnavailable, for example the path of a log. The proxy that the environment
    names is used, but not for this machine.

    All requests raise EndpointError for an error status, EngineUnavailable if nothing answers, NoReply after a
    time-out, and LLMError for a reply that is not JSON.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Headers | None = None,
        concurrency: int = 64,
        timeout: float = 600.0,
        retries: int = 4,
        backoff: float = 0.5,
        secret: str | None = None,
        hint: str | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self._headers = headers or {}
        self._concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._secret = secret
        self._hint = f"; {hint}" if hint else ""
        self._sessions: dict[asyncio.AbstractEventLoop, _OpenSession] = {}

    @property
    def public_url(self) -> str:
        """The base URL without any user and password."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def get(self, path: str) -> Any:
        """The JSON reply to a GET request."""
        return await self._decode(await self.get_raw(path), path)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        read_failure: Callable[[Any], ErrorBody | None] = error_in_reply,
        final: Callable[[EndpointError], bool] | None = None,
    ) -> Any:
        """The JSON reply to a POST request, with `stream` joined from the pieces of a stream.

        `headers`: of this request alone, beside those of every request; equal for all its tries, so that one of them
        can be an idempotency key.
        `read_failure(reply)`: the error that stands in a reply of status 200; it is raised like one with a status.
        `final(error)`: True if another try cannot help."""
        data = await _encode(body)
        send = self._send_for_stream if stream else self._send_for_json

        async def once() -> Any:
            reply = await send(path, data, headers)
            failure = read_failure(reply)
            if failure is not None:
                raise self._error(path, failure.status or 400, "answered 200 with an error", failure)
            return reply

        return await self._tries(path, once, final)

    async def get_raw(self, path: str) -> bytes:
        """The reply to a GET request as it came, for routes that send no JSON."""
        return await self._tries(path, lambda: self._send("GET", path, None))

    async def post_raw(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """The reply to a POST request as it came, for routes that send no JSON. No `body`: an empty request."""
        data = b"" if body is None else await _encode(body)
        return await self._tries(path, lambda: self._send("POST", path, data))

    async def engine_version(self) -> str | None:
        """The version of a vLLM behind this endpoint, as its route `/version` beside `/v1` tells it; None if the
        server has no such route or does not answer. Never raises LLMError."""
        root = self.beside(self.base_url.removesuffix("/v1"))
        try:
            version = (await root.get("/version"))["version"]
        except (LLMError, LookupError, TypeError):
            return None
        finally:
            await root.aclose()
        return version if isinstance(version, str) else None

    def beside(self, base_url: str) -> Endpoint:
        """A client of another address of the same server, for one short question."""
        return Endpoint(base_url, headers=self._headers, timeout=VERSION_TIMEOUT, retries=0, secret=self._secret)

    async def aclose(self) -> None:
        """Closes the session of this event loop. Without this, it is closed when the event loop ends."""
        await self._close_ended()
        opened = self._sessions.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened.closer.aclose()

    async def _session(self) -> aiohttp.ClientSession:
        """The session of this event loop."""
        loop = asyncio.get_running_loop()
        opened = self._sessions.get(loop)
        if opened is None or opened.session.closed:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._concurrency, keepalive_timeout=KEEP_ALIVE),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            closer = _closing(session)
            await anext(closer)
            opened = self._sessions[loop] = _OpenSession(session, closer)
            await self._close_ended()
        return opened.session

    async def _close_ended(self) -> None:
        """Closes sessions of event loops that ended without closing their generators."""
        for loop in [loop for loop in self._sessions if loop.is_closed()]:
            await self._sessions.pop(loop).session.close()

    async def _tries(
        self,
        path: str,
        once: Callable[[], Awaitable[ResultT]],
        final: Callable[[EndpointError], bool] | None = None,
    ) -> ResultT:
        """`once()`, again after what may pass."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            wait = min(LONGEST_WAIT, self._backoff * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                return await once()
            except EndpointError as error:
                if last or not is_passing(error.status, error.body.words) or (final is not None and final(error)):
                    raise
                wait = max(wait, error.retry_after)
            except StreamBroken as error:
                if last:
                    raise LLMError(f"{self.public_url}: {path}: {error}") from None
            except (aiohttp.InvalidURL, UnicodeError):
                raise LLMError(f"not a usable address: {self.public_url}") from None
            except (aiohttp.ClientError, ConnectionError) as error:
                if last:
                    reason = self._clean(str(error) or type(error).__name__)
                    raise EngineUnavailable(f"no engine at {self.public_url}: {reason}{self._hint}") from None
            except TimeoutError:  # no other try: it would take as long again
                raise NoReply(f"{self.public_url}: no reply to {path} within {self._timeout:g} s") from None
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _request(
        self, method: str, path: str, data: bytes | None, own: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """The reply to one request. Raises where its status is that of an error; otherwise the caller closes it."""
        url = self._url(path)
        headers = {**self._current_headers, **(own or {})}
        if data:
            headers["Content-Type"] = "application/json"
        proxy = proxy_for(url)
        if proxy is not None and not proxy.startswith(("http://", "https://")):
            raise LLMError(f"the proxy {_without_user(proxy)} of the environment is of a kind that is not supported")
        session = await self._session()
        # A redirect would turn POST into GET, and send the key to another address.
        reply = await session.request(method, url, data=data, headers=headers, proxy=proxy, allow_redirects=False)
        if reply.status < 300:
            return reply
        async with reply:
            if reply.status < 400:
                moved = f"this is at {reply.headers.get('Location', 'another address')} now"
                raise self._error(path, reply.status, f"answered {reply.status}", ErrorBody(moved, moved))
            text = (await reply.content.read(ERROR_BYTES)).decode(errors="replace")
            try:
                body = read_error(json.loads(text))
            except (ValueError, RecursionError):
                body = ErrorBody(text, text[:2000])
            error = self._error(path, reply.status, f"answered {reply.status}", body)
            error.retry_after = retry_after(reply.headers) or error.retry_after
            raise error

    async def _send(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """One try of a request: the bytes of the reply."""
        async with asyncio.timeout(self._timeout):
            async with await self._request(method, path, data, headers) as reply:
                return await reply.read()

    def _url(self, path: str) -> str:
        """The address of a route. A query of the base URL, such as `?api-version=...`, stands behind it."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path.lstrip('/')}"))

    async def _send_for_json(self, path: str, data: bytes, headers: Mapping[str, str] | None) -> Any:
        """One try of a POST request: the JSON reply."""
        async with asyncio.timeout(self._timeout):
            async with await self._request("POST", path, data, headers) as reply:
                raw = await reply.read()
        if reply.content_type == "text/event-stream" or raw.lstrip().startswith(b"data:"):  # it streams unasked

            async def whole() -> AsyncIterator[bytes]:
                yield raw

            return await join_stream(whole())
        return await self._decode(raw, path)

    async def _send_for_stream(self, path: str, data: bytes, headers: Mapping[str, str] | None) -> Any:
        """One try of a POST request whose reply is a stream, joined."""
        async with asyncio.timeout(self._timeout) as limit:
            async with await self._request("POST", path, data, headers) as reply:
                limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
                if "json" in reply.content_type:  # the server does not stream
                    return await self._decode(await reply.read(), path)

                async def pieces() -> AsyncIterator[bytes]:
                    async for piece in reply.content.iter_any():
                        limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
                        yield piece

                return await join_stream(pieces())

    async def _decode(self, raw: bytes, path: str) -> Any:
        """The JSON in a reply, in a thread where it is long."""
        try:
            if len(raw) > 1_000_000:
                return await asyncio.to_thread(json.loads, raw)
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise LLMError(f"{self.public_url}: the reply to {path} is not JSON") from None

    def _error(self, path: str, status: int, how: str, body: ErrorBody) -> EndpointError:
        """The error to raise for what an endpoint said, without secrets."""
        body = replace(
            body,
            message=self._without_secrets(body.message),
            words=self._without_secrets(body.words),
            failed_generation=body.failed_generation and self._without_secrets(body.failed_generation),
        )
        detail = self._clean(body.message)
        error = EndpointError(f"{self.public_url}: {path} {how}: {detail}", status, detail, body)
        error.retry_after = min(LONGEST_RETRY_AFTER, wait_in_words(body.words))
        return error

    @property
    def _current_headers(self) -> Mapping[str, str]:
        """The headers of every request, made anew where they are a function."""
        return self._headers() if callable(self._headers) else self._headers

    def _clean(self, text: str) -> str:
        """One line of at most 500 characters, without secrets."""
        text = " ".join(self._without_secrets(text).split())
        return text if len(text) <= 500 else text[:497] + "..."

    def _without_secrets(self, text: str) -> str:
        """A text with key and header values replaced by asterisks."""
        values = (value.removeprefix("Bearer ") for value in self._current_headers.values())
        for secret in (self._secret or "", *(value for value in values if len(value) >= 8)):
            if secret:
                text = text.replace(secret, "***")
        return text


@dataclass(slots=True)
class _OpenSession:
    session: aiohttp.ClientSession
    closer: AsyncGenerator[None, None]


async def _closing(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Closes the session when it is closed itself: by its owner, or by the event loop, which closes every asynchronous
    generator at its end and those that nobody holds any more."""
    try:
        yield
    finally:
        await session.close()


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]


async def _encode(body: Mapping[str, Any]) -> bytes:
    """A body as JSON, in a thread where it holds many prompts."""
    prompts = body.get("prompt")
    if isinstance(prompts, list) and len(prompts) > 64:
        return await asyncio.to_thread(lambda: json.dumps(body).encode())
    return json.dumps(body).encode()
