"""Streamed replies are joined into what the endpoint would have sent at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from rlm_env.llm import ContextOverflow, LLMError, OpenAIChat
from rlm_env.llm.stream import StreamBroken, join_stream
from rlm_env.messages import Usage
from tests.llm.replies import HELLO, client, refusal, said
from tests.stub_endpoint import stub_endpoint


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(index: int | None, arguments: str = "", **fields: Any) -> dict[str, Any]:
    """A piece of a tool call; `index` None: left out."""
    name = fields.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return ({} if index is None else {"index": index}) | {"function": function} | fields


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def events(*chunks: Any, end: str = "\n\n", done: bool = True, space: str = " ") -> bytes:
    texts = [one if isinstance(one, str) else f"data:{space}{json.dumps(one)}" for one in chunks]
    return (end.join([*texts, *(["data: [DONE]"] if done else [])]) + end).encode()


async def joined(data: bytes, size: int = 7) -> dict[str, Any]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return await join_stream(pieces())


HELLO_CHUNKS = [
    chunk(role="assistant", content=""),
    chunk(content="Gr"),
    chunk(content="üße\U0001f600"),
    chunk("stop"),
    USAGE,
]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r", "\n"])
@pytest.mark.parametrize("done", [True, False])
async def test_text_in_pieces_of_any_size_and_with_any_line_ends(size, end, done) -> None:
    reply = await joined(events(*HELLO_CHUNKS, end=end, done=done), size)
    assert reply["choices"][0]["message"]["content"] == "Grüße\U0001f600"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"] == USAGE["usage"]


async def test_comments_other_fields_and_a_last_event_without_an_end() -> None:
    data = events(": OPENROUTER PROCESSING", "event: message", "id: 3", "retry: 5", *HELLO_CHUNKS, done=False, space="")
    assert (await joined(b"\xef\xbb\xbf" + data.rstrip()))["usage"] == USAGE["usage"]
    spread = json.dumps(chunk("stop", content="x"), indent=1).replace("\n", "\ndata: ")
    assert (await joined(events(f"data: {spread}")))["choices"][0]["message"]["content"] == "x"


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, id="a", name="f"), piece(0, '{"x"'), piece(0, ": 1}"), piece(1, "{}", id="b", name="g")],
        [piece(0, '{"x": 1}', id="a", name="f"), piece(0, "{}", id="b", name="g")],  # every index is 0
        [piece(None, '{"x": 1}', id="a", name="f"), piece(None, "{}", id="b", name="g")],
        [piece(0, '{"x"', id="a", name="f"), piece(0, ": 1}", id="a", name="f"), piece(1, "{}", id="b", name="g")],
        [piece(0, id="a", name="f"), piece(1, id="b", name="g"), piece(0, '{"x": 1}'), piece(1, "{}")],
    ],
)
async def test_tool_calls_in_pieces(pieces) -> None:
    reply = await joined(events(*(chunk(tool_calls=[one]) for one in pieces), chunk("tool_calls"), USAGE))
    calls = reply["choices"][0]["message"]["tool_calls"]
    found = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert found == [("a", "f", '{"x": 1}'), ("b", "g", "{}")]


async def test_two_calls_without_index_and_id() -> None:
    pieces = [piece(None, '{"x": 1}', name="f"), piece(None, "{}", name="f")]
    reply = await joined(events(*(chunk(tool_calls=[one]) for one in pieces), chunk("stop")))
    assert [call["function"]["arguments"] for call in reply["choices"][0]["message"]["tool_calls"]] == [
        '{"x": 1}',
        "{}",
    ]


async def test_reasoning_parts_and_signatures() -> None:
    details = (
        [{"type": "reasoning.text", "text": "h", "index": 0}],
        [{"type": "reasoning.text", "text": "m", "index": 0}],
    )
    signed = piece(0, "{}", id="a", name="f", extra_content={"google": {"thought_signature": "s"}})
    data = events(
        chunk(reasoning_content="h", reasoning_details=details[0]),
        chunk(reasoning_content="m", reasoning_details=details[1]),
        chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
        chunk(content=[{"type": "text", "text": "a"}]),
        chunk(content="b"),
        chunk("stop", tool_calls=[signed]),
    )
    message = (await joined(data))["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"
    assert message["reasoning_details"] == [{"type": "reasoning.text", "text": "hm", "index": 0}]
    assert [part["type"] for part in message["content"]] == ["thinking", "text"]
    assert message["content"][1]["text"] == "ab"
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}


@pytest.mark.parametrize(
    "data",
    [
        events(chunk(content="half"), done=False),
        events(done=True),
        b"",
        b"<html>proxy</html>",
        events("data: {not json}"),
        events("data: [1]"),
    ],
)
async def test_what_broke_off_or_is_no_stream(data) -> None:
    with pytest.raises(StreamBroken):
        await joined(data)


def stream(*chunks: Any, **options: Any) -> web.Response:
    return web.Response(body=events(*chunks, **options), content_type="text/event-stream")


async def test_a_client_that_streams() -> None:
    async with stub_endpoint(lambda *_: stream(*HELLO_CHUNKS)) as stub, client(stub, stream=True) as llm:
        found = await llm.complete(HELLO)
    assert (found.text, found.finish_reason, found.usage) == ("Grüße\U0001f600", "stop", Usage(7, 2, 0, 1))
    assert stub.bodies[0]["stream"] is True
    assert stub.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_stream_that_broke_off_is_asked_for_again_and_then_an_error() -> None:
    replies = iter([stream(chunk(content="half"), done=False), stream(*HELLO_CHUNKS)])
    async with stub_endpoint(lambda *_: next(replies)) as stub, client(stub, stream=True) as llm:
        assert (await llm.complete(HELLO)).text == "Grüße\U0001f600"
    broken = stub_endpoint(lambda *_: stream(chunk(content="half"), done=False))
    async with broken as stub, client(stub, stream=True, retries=1) as llm:
        with pytest.raises(LLMError, match="ended before the reply did"):
            await llm.complete(HELLO)
    assert len(stub.requests) == 2


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(content="half"), {"error": {"code": 502, "message": "Provider disconnected"}}],
        [chunk(content="half"), {"error": {"code": 502, "message": "Provider disconnected"}, **chunk("error")}],
        [chunk(content="half"), 'event: error\ndata: {"error": {"message": "Provider disconnected"}}'],
        [{"object": "error", "message": "Provider disconnected", "code": 502}],
    ],
)
async def test_an_error_in_the_stream(chunks) -> None:
    async with stub_endpoint(lambda *_: stream(*chunks)) as stub, client(stub, stream=True, retries=1) as llm:
        with pytest.raises(LLMError, match="Provider disconnected"):
            await llm.complete(HELLO)
    assert len(stub.requests) == 2


async def test_an_overflow_in_the_stream() -> None:
    error = {"error": {"code": 400, "message": "prompt is too long: 208310 tokens > 200000 maximum"}}
    async with stub_endpoint(lambda *_: stream(error)) as stub, client(stub, stream=True) as llm:
        with pytest.raises(ContextOverflow):
            await llm.complete(HELLO)


async def test_a_server_that_does_not_stream() -> None:
    async with stub_endpoint(lambda *_: said("whole")) as stub, client(stub, stream=True) as llm:
        assert (await llm.complete(HELLO)).text == "whole"


@pytest.mark.parametrize(
    "words",
    [
        "This model only support stream mode, please enable the stream parameter to access the model.",
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "Requests with max_tokens > 4096 must have stream=true",
        "Streaming is required for operations that may take longer than 10 minutes",
        "stream must be true",
    ],
)
async def test_an_endpoint_that_only_streams(words) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return stream(*HELLO_CHUNKS) if body.get("stream") else refusal(words)

    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        for _ in range(2):
            assert (await llm.complete(HELLO)).text == "Grüße\U0001f600"
        assert "streamed" in llm.adaptations[0]
    assert ["stream" in body for body in stub.bodies] == [False, True, True]


async def test_an_endpoint_that_refuses_stream_options() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return refusal("Unknown field: stream_options") if "stream_options" in body else stream(*HELLO_CHUNKS)

    async with stub_endpoint(answer) as stub, client(stub, stream=True, retries=0) as llm:
        assert (await llm.complete(HELLO)).text == "Grüße\U0001f600"


@pytest.mark.parametrize(("pause", "ends"), [(0.1, True), (1.0, False)])
async def test_the_time_limit_holds_for_each_piece(pause, ends) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for one in HELLO_CHUNKS:
            await reply.write(events(one, done=False))
            await asyncio.sleep(pause)
        await reply.write(events())
        return reply

    app = web.Application()
    app.router.add_post("/v1/chat/completions", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        async with OpenAIChat("m", url, retries=0, timeout=0.4, stream=True) as llm:
            if ends:
                assert (await llm.complete(HELLO)).text == "Grüße\U0001f600"
            else:
                with pytest.raises(LLMError, match=r"within 0\.4 s"):
                    await llm.complete(HELLO)
    finally:
        await runner.cleanup()
