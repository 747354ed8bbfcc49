"""The HTTP client for engines: one pooled session per event loop, retries, and errors of one line without secrets.

Every request to an engine goes through `Endpoint`: chat (`openai_chat.py`), token ids (`token_policy.py`), and the
control routes of our own vLLM (`vllm/server.py`). Not covered: streaming.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from rlm_env.llm.base import EngineUnavailable, LLMError

RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
KEEP_ALIVE = 4.0
"""Seconds for which an idle connection is kept. uvicorn, and so vLLM, closes one after 5."""
LONGEST_WAIT = 30.0
"""Upper limit of the seconds between two tries, whatever `Retry-After` says."""
VERSION_TIMEOUT = 10.0
"""Seconds that an endpoint gets to name its version."""


class EndpointError(LLMError):
    """The endpoint answered with an error status."""

    def __init__(self, message: str, status: int, detail: str) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        """The server's message, without secrets."""


class Endpoint:
    """A client of one base URL. Safe to use from several event loops, one after the other or at once.

    `timeout`: seconds for one try, from sending to the last byte. `retries`: tries after the first one.
    `secret`: replaced by asterisks in every error message. `hint`: appended to the message of EngineUnavailable,
    for example the path of a log.

    All requests raise EndpointError for an error status, EngineUnavailable if nothing answers, and LLMError after a
    time-out or for a reply that is not JSON.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
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
        self._headers = dict(headers or {})
        self._concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._secret = secret
        self._hint = f"; {hint}" if hint else ""
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    @property
    def public_url(self) -> str:
        """The base URL without any user and password."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def get(self, path: str) -> Any:
        """The JSON reply to a GET request."""
        return await self._decode(await self._request("GET", path, None), path)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON reply to a POST request."""
        return await self._decode(await self._request("POST", path, await _encode(body)), path)

    async def get_raw(self, path: str) -> bytes:
        """The reply to a GET request as it came, for routes that send no JSON."""
        return await self._request("GET", path, None)

    async def post_raw(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """The reply to a POST request as it came, for routes that send no JSON. No `body`: an empty request."""
        return await self._request("POST", path, b"" if body is None else await _encode(body))

    async def engine_version(self) -> str | None:
        """The version of a vLLM behind this endpoint, as its route `/version` beside `/v1` tells it; None if the
        server has no such route or does not answer. Never raises LLMError."""
        root = Endpoint(
            self.base_url.removesuffix("/v1"),
            headers=self._headers,
            timeout=VERSION_TIMEOUT,
            retries=0,
            secret=self._secret,
        )
        try:
            version = (await root.get("/version"))["version"]
        except (LLMError, LookupError, TypeError):
            return None
        finally:
            await root.aclose()
        return version if isinstance(version, str) else None

    async def aclose(self) -> None:
        """Closes the sessions of this event loop and of those that have ended."""
        await self._close_dead_sessions()
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    async def _close_dead_sessions(self) -> None:
        for loop in [loop for loop in self._sessions if loop.is_closed()]:
            await self._sessions.pop(loop).close()

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            session = self._sessions[loop] = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=self._concurrency, keepalive_timeout=KEEP_ALIVE),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            await self._close_dead_sessions()
        return session

    async def _request(self, method: str, path: str, data: bytes | None) -> bytes:
        url = f"{self.base_url}/{path.lstrip('/')}"
        headers = {"Content-Type": "application/json"} if data else None
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            wait = min(LONGEST_WAIT, self._backoff * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                async with asyncio.timeout(self._timeout):
                    async with (await self._session()).request(method, url, data=data, headers=headers) as reply:
                        if reply.status < 400:
                            return await reply.read()
                        error = await self._error(reply, path)
                        if last or error.status not in RETRIED_STATUS:
                            raise error
                        wait = max(wait, _retry_after(reply))
            except aiohttp.InvalidURL:
                raise LLMError(f"not a usable address: {self.public_url}") from None
            except (aiohttp.ClientError, ConnectionError) as error:
                if last:
                    reason = self._clean(str(error) or type(error).__name__)
                    raise EngineUnavailable(f"no engine at {self.public_url}: {reason}{self._hint}") from None
            except TimeoutError:  # no other try: it would take as long again
                raise LLMError(f"{self.public_url}: no reply to {path} within {self._timeout:g} s") from None
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _decode(self, raw: bytes, path: str) -> Any:
        try:
            if len(raw) > 1_000_000:
                return await asyncio.to_thread(json.loads, raw)
            return json.loads(raw)
        except ValueError:
            raise LLMError(f"{self.public_url}: the reply to {path} is not JSON") from None

    async def _error(self, reply: aiohttp.ClientResponse, path: str) -> EndpointError:
        text = (await reply.content.read(100_000)).decode(errors="replace")
        try:
            decoded = json.loads(text)
            inner = decoded.get("error", decoded) if isinstance(decoded, dict) else decoded
            detail = str(inner.get("message") or inner) if isinstance(inner, dict) else str(inner)
        except ValueError:
            detail = text
        detail = self._clean(detail)
        return EndpointError(f"{self.public_url}: {path} answered {reply.status}: {detail}", reply.status, detail)

    def _clean(self, text: str) -> str:
        """One line of at most 500 characters, without the secret."""
        if self._secret:
            text = text.replace(self._secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= 500 else text[:497] + "..."


async def _encode(body: Mapping[str, Any]) -> bytes:
    prompts = body.get("prompt")
    if isinstance(prompts, list) and len(prompts) > 64:
        return await asyncio.to_thread(lambda: json.dumps(body).encode())
    return json.dumps(body).encode()


def _retry_after(reply: aiohttp.ClientResponse) -> float:
    try:
        return min(LONGEST_WAIT, float(reply.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
