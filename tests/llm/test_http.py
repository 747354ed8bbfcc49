"""When requests are sent again, after how long, and by which way."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from rlm_env.llm import EngineUnavailable, LLMError, OpenAIChat, Sampling
from rlm_env.llm.proxy import proxy_for
from rlm_env.llm.retries import is_passing, retry_after
from tests.llm.replies import HELLO, client, refusal, said
from tests.stub_endpoint import stub_endpoint


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 527, 529, 530])
async def test_passing_trouble_is_retried(status) -> None:
    replies = iter([web.Response(status=status, text="<html>proxy</html>"), refusal("later", status), said("fine")])
    async with stub_endpoint(lambda *_: next(replies)) as stub, client(stub) as llm:
        assert (await llm.complete(HELLO)).text == "fine"
    assert len(stub.requests) == 3


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "You exceeded your current quota, please check your plan and billing details."),
        (429, "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 60000."),
        (501, "not implemented"),
        (400, "bad"),
        (401, "bad key"),
    ],
)
async def test_lasting_trouble_is_not(status, words) -> None:
    async with stub_endpoint(lambda *_: refusal(words, status)) as stub, client(stub) as llm:
        with pytest.raises(LLMError):
            await llm.complete(HELLO)
    assert len(stub.requests) == 1
    assert not is_passing(status, words)


def test_both_forms_of_retry_after() -> None:
    now = time.time()
    in_three = formatdate(now + 3, usegmt=True)
    assert retry_after({"Retry-After": "7"}) == 7
    assert retry_after({"Retry-After": "1.5"}) == 1.5
    assert 1.5 < retry_after({"Retry-After": in_three}) <= 3
    skewed = {"Retry-After": formatdate(now + 3603, usegmt=True), "Date": formatdate(now + 3600, usegmt=True)}
    assert retry_after(skewed) == 3  # by the server's own clock
    assert retry_after({"retry-after-ms": "250", "Retry-After": "9"}) == 0.25
    assert retry_after({"Retry-After": "-5"}) == 0
    assert retry_after({"Retry-After": formatdate(now - 60, usegmt=True)}) == 0
    assert retry_after({"Retry-After": "soon"}) == 0
    assert retry_after({"Retry-After": "nan"}) == 0
    assert retry_after({"Retry-After": "1e9"}) == 120
    assert retry_after({}) == 0


@pytest.mark.slow
async def test_a_date_is_waited_for() -> None:
    def answer(*_: Any) -> Any:
        if len(stub.requests) > 1:
            return said("fine")
        date = formatdate(time.time() + 2, usegmt=True)
        return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": date})

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        start = time.monotonic()
        await llm.complete(HELLO)
    assert time.monotonic() - start > 0.9


async def test_a_connection_that_is_reset_is_tried_again() -> None:
    resets = 2

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal resets
        await reader.read(100)
        if resets:
            resets -= 1
            writer.transport.abort()
            return
        body = b'{"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with OpenAIChat("m", url, retries=3) as llm:
        llm._endpoint._backoff = 0.001
        assert (await llm.complete(HELLO)).text == "fine"
    server.close()


PROXY_NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def proxies(monkeypatch):
    """Sets the proxies of the environment."""
    for name in PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def set_to(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


def test_the_proxy_of_an_address(proxies) -> None:
    assert proxy_for("https://api.example.com/v1") is None
    proxies(HTTPS_PROXY="http://p:1", HTTP_PROXY="http://q:2", NO_PROXY="internal.example.com,.corp,10.0.0.0/8,::1")
    assert proxy_for("https://api.example.com/v1") == "http://p:1"
    assert proxy_for("http://api.example.com/v1") == "http://q:2"
    for direct in (
        "internal.example.com",
        "a.b.corp",
        "10.1.2.3:8000",
        "127.0.0.1:8000",
        "localhost",
        "[::1]:8",
        "0.0.0.0",
    ):
        assert proxy_for(f"http://{direct}/v1") is None, direct
    assert proxy_for("http://11.1.2.3/v1") == "http://q:2"


def test_all_proxy_and_a_proxy_without_a_scheme(proxies) -> None:
    proxies(ALL_PROXY="proxy.example.com:3128")
    assert proxy_for("https://api.example.com/v1") == "http://proxy.example.com:3128"
    proxies(NO_PROXY="*")
    assert proxy_for("https://api.example.com/v1") is None


async def test_requests_go_by_the_proxy_but_not_to_this_machine(proxies) -> None:
    async with stub_endpoint(lambda *_: said("by proxy")) as proxy, stub_endpoint(lambda *_: said("direct")) as stub:
        proxies(HTTP_PROXY=proxy.base_url.removesuffix("/v1"))
        async with OpenAIChat("m", "http://llm.invalid/v1", retries=0) as far, client(stub) as near:
            assert (await far.complete(HELLO)).text == "by proxy"
            assert (await near.complete(HELLO)).text == "direct"
        assert proxy.requests[0][2]["Host"] == "llm.invalid"


async def test_a_proxy_that_is_down_or_of_another_kind_is_an_error(proxies) -> None:
    proxies(HTTP_PROXY="http://me:hunter2@127.0.0.1:9")
    async with OpenAIChat("m", "http://llm.invalid/v1", retries=0) as llm:
        with pytest.raises(EngineUnavailable) as caught:
            await llm.complete(HELLO)
        assert "hunter2" not in str(caught.value)
        proxies(HTTP_PROXY="socks5://me:hunter2@127.0.0.1:9")
        with pytest.raises(LLMError, match=r"127\.0\.0\.1:9 .*not supported") as caught:
            await llm.complete(HELLO)
        assert "hunter2" not in str(caught.value)


async def test_headers_of_each_request() -> None:
    tokens = iter(["first-token-123", "second-token-456"])
    async with stub_endpoint(lambda *_: said("x")) as stub:
        async with client(stub, headers=lambda: {"X-Token": next(tokens)}) as llm:
            await llm.complete(HELLO)
            await llm.complete(HELLO)
        async with client(stub, headers={"X-Title": "me"}, api_key=" key-123\n") as llm:
            await llm.complete(HELLO)
    assert [headers.get("X-Token") for _, _, headers in stub.requests] == ["first-token-123", "second-token-456", None]
    assert stub.requests[2][2]["X-Title"] == "me"
    assert stub.requests[2][2]["Authorization"] == "Bearer key-123"


async def test_all_tries_of_a_request_carry_the_headers_of_this_request() -> None:
    class Numbered(OpenAIChat):
        count = 0

        def request_headers(self) -> dict[str, str]:
            self.count += 1
            return {"Idempotency-Key": f"key-{self.count}"}

    replies = iter([refusal("later", 503), refusal("Unsupported parameter: 'top_p'", 400), said("a"), said("b")])
    async with stub_endpoint(lambda *_: next(replies)) as stub:
        llm = Numbered("m", stub.base_url)
        llm._endpoint._backoff = 0.001
        await llm.complete(HELLO, sampling=Sampling(top_p=0.5))
        await llm.complete(HELLO, sampling=Sampling(top_p=0.5))
        await llm.aclose()
    keys = [headers["Idempotency-Key"] for _, _, headers in stub.requests]
    assert keys == ["key-1", "key-1", "key-2", "key-3"]  # another body is another request
    assert "top_p" not in stub.bodies[2]


async def test_the_values_of_headers_are_in_no_error() -> None:
    endpoint = stub_endpoint(lambda *_: refusal("bad key azure-secret-key", 400))
    async with endpoint as stub, client(stub, headers={"api-key": "azure-secret-key"}) as llm:
        with pytest.raises(LLMError) as caught:
            await llm.complete(HELLO)
    assert "azure-secret" not in str(caught.value)
    assert "azure-secret" not in repr(caught.value.__dict__)


async def test_a_proxy_that_refuses_the_size_of_a_request_knows_no_window() -> None:
    page = web.Response(status=413, text="<html><h1>413 Request Entity Too Large</h1></html>")
    async with stub_endpoint(lambda *_: page) as stub, client(stub, retries=0) as llm:
        with pytest.raises(LLMError, match="Too Large") as caught:
            await llm.complete(HELLO)
    assert type(caught.value).__name__ == "EndpointError"


async def test_a_rate_limit_is_no_overflow() -> None:
    words = "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce"
    for status in (413, 429):
        error = refusal(words, status, type="tokens", code="rate_limit_exceeded")
        async with stub_endpoint(lambda *_, error=error: error) as stub, client(stub, retries=2) as llm:
            with pytest.raises(LLMError, match="tokens per minute") as caught:
                await llm.complete(HELLO)
            assert type(caught.value).__name__ == "EndpointError"
            assert {body["max_tokens"] for body in stub.bodies} == {4096}  # and no shorter reply is asked for
