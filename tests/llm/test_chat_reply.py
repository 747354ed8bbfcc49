"""Replies in the shapes that endpoints send, and failures that come in a reply of status 200."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from rlm_env.llm import ContextOverflow, LLMError
from rlm_env.llm.chat_reply import read_completion, read_usage
from rlm_env.messages import Usage
from rlm_env.runs.prices import Price
from tests.llm.replies import HELLO, call, client, refusal, said
from tests.stub_endpoint import stub_endpoint


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", None),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}],
            "x",
            "hm",
        ),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "output_text", "text": "x"}], "x", "hm"),
        ([{"type": "reasoning", "summary": [{"text": "hm"}]}, "x"], "x", "hm"),
        ({"type": "text", "text": "x"}, "x", None),
        ([{"type": "text", "text": {"value": "x"}}, {"type": "image_url", "image_url": {}}, None], "x", None),
        ("x", "x", None),
        ([], "", None),
    ],
)
def test_content_as_parts(content, text, reasoning) -> None:
    found = read_completion(said(content))
    assert (found.text, found.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning_content": None, "reasoning": "hm"},
        {"thinking": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    ],
)
def test_reasoning_under_any_name(fields) -> None:
    found = read_completion(said("x", **fields))
    assert (found.text, found.reasoning) == ("x", "hm")
    assert found.returned_fields == {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (call(arguments={"code": "x"}), ("c1", "python_repl", '{"code": "x"}')),
        ({"function": {"name": "f", "arguments": None}}, ("", "f", "")),
        ({"id": None, "function": {"name": None, "arguments": "{"}}, ("", "", "{")),
        ({"id": 7, "name": "f", "arguments": {"x": 1}}, ("7", "f", '{"x": 1}')),
        ({"id": "a", "type": "function", "function": {"name": "f", "arguments": [1]}}, ("a", "f", "[1]")),
    ],
)
def test_tool_calls(raw, read) -> None:
    (found,) = read_completion(said(None, "tool_calls", tool_calls=[raw])).tool_calls
    assert (found["id"], found["function"]["name"], found["function"]["arguments"]) == read


def test_a_provider_s_own_fields_of_a_call_are_kept() -> None:
    signed = {**call("x"), "extra_content": {"google": {"thought_signature": "s"}}, "index": 0}
    (found,) = read_completion(said(None, tool_calls=[signed])).tool_calls
    assert found["extra_content"] == {"google": {"thought_signature": "s"}}
    assert "index" not in found


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ({"prompt_tokens": "12", "completion_tokens": "3"}, (12, 3, 0)),
        ({"prompt_tokens": "1,200", "completion_tokens": 3.0}, (1200, 3, 0)),
        ({"prompt_tokens": -5, "completion_tokens": None}, (0, 0, 0)),
        ({"prompt_tokens": "many", "completion_tokens": True}, (0, 0, 0)),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, (0, 0, 0)),
        (None, (0, 0, 0)),
        ([], (0, 0, 0)),
        ("12", (0, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 5}}, (9, 1, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": None}, (9, 1, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}, (9, 1, 4)),
        ({"prompt_tokens": 4, "completion_tokens": 82, "cached_tokens": 9656}, (9660, 82, 9656)),
        ({"input_tokens": 4, "output_tokens": 8, "cache_read_input_tokens": 3}, (7, 8, 3)),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 17}
            | {"completion_tokens_details": {"reasoning_tokens": 10}},
            (5, 12, 0),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
            | {"completion_tokens_details": {"reasoning_tokens": 10}},
            (5, 12, 0),
        ),
    ],
)
def test_usage(raw, read) -> None:
    usage = read_usage(raw)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == read
    assert usage.calls == 1
    cost = Price(prompt=3.0, cached=0.3, completion=15.0).of(usage)
    assert (cost is None) == (read[0] == 0), "no prompt is empty: its tokens are not told"
    assert cost is None or cost > 0
    assert Price(prompt=0.0, completion=0.0).of(usage) == 0, "whatever it took"


def test_a_cost_is_never_negative() -> None:
    assert Price(prompt=3.0, cached=0.0, completion=0.0).of(Usage(4, 0, 9656, 1)) == 0


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        (None, None),
        ("tool_use", "tool_calls"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", "tool_use_failed"),
    ],
)
def test_finish_reasons_of_other_apis(raw, read) -> None:
    assert read_completion(said("x", raw)).finish_reason == read


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "RECITATION", "prohibited_content", "sensitive"])
@pytest.mark.parametrize("content", [None, "", "The first half of"])
async def test_what_was_withheld_is_an_error_with_its_cost(reason, content) -> None:
    async with stub_endpoint(lambda *_: said(content, reason)) as stub, client(stub) as llm:
        with pytest.raises(LLMError, match=f"withheld the reply .{reason.lower()}") as caught:
            await llm.complete(HELLO)
    assert caught.value.usage == Usage(7, 2, 0, 1)
    assert len(stub.bodies) == 1


def silent(finish: str | None, content: str | None = "", tokens: int = 0, native: str | None = None) -> dict[str, Any]:
    """A reply without text, and with the provider's own finish reason where there is one."""
    reply = said(content, finish)
    reply["usage"]["completion_tokens"] = tokens
    reply["choices"][0] |= {} if native is None else {"native_finish_reason": native}
    return reply


WITHHELD_NATIVE = ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "content_filter"]


@pytest.mark.parametrize("native", WITHHELD_NATIVE)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_gateway_that_calls_a_withheld_reply_finished(native, stream) -> None:
    reply = silent("stop", native=native)
    pieces = ""
    if stream:
        choice = reply["choices"][0]
        choice["delta"] = choice.pop("message")
        pieces = f"data: {json.dumps(reply)}\n\ndata: [DONE]\n\n"
    async with (
        stub_endpoint(
            lambda *_: web.Response(text=pieces, content_type="text/event-stream") if stream else reply
        ) as stub,
        client(stub, stream=stream) as llm,
    ):
        with pytest.raises(LLMError, match=f"withheld the reply .{native.lower()}"):
            await llm.complete(HELLO)


def test_a_refusal_by_the_provider_s_own_word() -> None:
    assert read_completion(silent("stop", native="refusal")).finish_reason == "refusal"
    assert read_completion(silent("stop", tokens=1, native="end_turn")).finish_reason == "stop"


@pytest.mark.parametrize("reason", ["unknown", "error", None, "other_reason"])
def test_an_empty_reply_that_nothing_ended_is_a_failure(reason) -> None:
    with pytest.raises(LLMError, match=f"empty reply .finish_reason {reason!r}"):
        read_completion(silent(reason))
    if reason == "unknown":
        calls = read_completion(said("", reason, tool_calls=[call("x")])).tool_calls
        assert len(calls) == 1
    assert read_completion(silent("stop", tokens=3)).text == ""


def test_a_reply_of_nothing_is_an_error_and_an_empty_one_is_the_model_s() -> None:
    nothing = {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}
    with pytest.raises(LLMError, match="empty"):
        read_completion(nothing)
    assert read_completion(said("")).text == ""
    assert read_completion(said(None, "length")).finish_reason == "length"
    assert read_completion(said(None, reasoning_content="hm")).reasoning == "hm"


DISCONNECTED = {"code": 502, "message": "Provider disconnected"}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"error": {"code": 403, "message": "Your input was flagged"}}, "Your input was flagged"),
        ({"error": {"code": "model_error", "message": "It broke"}, "choices": []}, "It broke"),
        ({"error": "It broke"}, "It broke"),
        ({"object": "error", "message": "It broke", "code": 400}, "It broke"),
        (
            {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"why": "too warm"}'}}},
            "too warm",
        ),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": DISCONNECTED}]}, "disconnected"),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}, "ended the reply with 'error'"),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "abort"}]}, "abort"),
        ({"choices": [{"message": {"content": "half"}}], "error": DISCONNECTED}, "disconnected"),
    ],
)
async def test_errors_in_a_reply_of_status_200(reply, words) -> None:
    async with stub_endpoint(lambda *_: reply) as stub, client(stub, retries=0) as llm:
        with pytest.raises(LLMError, match=words):
            await llm.complete(HELLO)


@pytest.mark.parametrize(
    "error",
    [
        {"code": 429, "message": "Rate limit exceeded"},
        {"code": "429", "message": "slow down"},
        {"code": "rate_limit_exceeded", "message": "slow down"},
        {"type": "server_error", "message": "oh"},
        {"code": 502, "message": "bad gateway"},
        {"message": "The server is overloaded"},
    ],
)
async def test_passing_errors_in_a_reply_of_status_200_are_retried(error) -> None:
    replies = iter([{"error": error}, said("fine")])
    async with stub_endpoint(lambda *_: next(replies)) as stub, client(stub) as llm:
        assert (await llm.complete(HELLO)).text == "fine"


async def test_an_overflow_in_a_reply_of_status_200() -> None:
    error = {"code": 400, "message": "This model's maximum context length is 10 tokens, your prompt has 20 tokens"}
    async with stub_endpoint(lambda *_: {"error": error}) as stub, client(stub) as llm:
        with pytest.raises(ContextOverflow):
            await llm.complete(HELLO)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"message": "plain"}, "plain"),
        (400, {"detail": "of FastAPI"}, "of FastAPI"),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "not good", "type": "x"}]}, "seed: not good"),
        (400, [{"error": {"code": 400, "message": "of Gemini", "status": "INVALID_ARGUMENT"}}], "of Gemini"),
        (400, {"error": {"message": "Provider returned error", "metadata": {"raw": "the true reason"}}}, "true reason"),
        (400, {"error": {"code": "odd_thing", "param": "x"}}, "odd_thing"),
        (400, {"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        (400, "just text", "just text"),
    ],
)
async def test_an_error_in_any_shape_is_told_in_the_endpoint_s_words(status, body, words) -> None:
    async with stub_endpoint(lambda *_: (status, body)) as stub, client(stub) as llm:
        with pytest.raises(LLMError, match=words):
            await llm.complete(HELLO)


@pytest.mark.parametrize("generation", ['<function=python_repl={"code": "print(1)"}</function>', "", None])
async def test_a_call_that_the_endpoint_could_not_read_is_a_reply(generation) -> None:
    error = {"type": "invalid_request_error", "code": "tool_use_failed"}
    error |= {} if generation is None else {"failed_generation": generation}
    async with stub_endpoint(lambda *_: refusal("Failed to call a function.", **error)) as stub, client(stub) as llm:
        found = await llm.complete(HELLO, [{"type": "function", "function": {"name": "python_repl"}}])
    assert (found.text, found.finish_reason, found.usage.calls) == (generation or "", "tool_use_failed", 1)
    assert len(stub.bodies) == 1


async def test_a_limit_that_the_reasoning_used_up_is_a_reply_that_was_cut_off() -> None:
    words = "Could not finish the message because max_tokens or model output limit was reached. Please try again."
    async with stub_endpoint(lambda *_: refusal(words)) as stub, client(stub) as llm:
        assert (await llm.complete(HELLO)).finish_reason == "length"


@pytest.mark.parametrize(
    "shape", [{"choices": None}, {"choices": [None]}, {"choices": [{"message": None}]}, None, 7, []]
)
async def test_nonsense_is_an_error(shape: Any) -> None:
    async with stub_endpoint(lambda *_: json.loads(json.dumps(shape))) as stub, client(stub, retries=0) as llm:
        with pytest.raises(LLMError):
            await llm.complete(HELLO)
