"""What providers and servers send beside the plain reply, played by an endpoint: one row for each thing met.

The words are theirs, shortened. Overflows have a table of their own (`test_overflow.py`).
"""

# ruff: noqa: E501  the words of providers stand in one piece

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from rlm_env.llm import ContextOverflow, EngineRefused, LLMError, Sampling, ToolsRefused
from rlm_env.llm.retries import wait_in_words
from rlm_env.messages import UNREADABLE_CALL
from tests.llm.replies import HELLO, call, client, refusal, said
from tests.stub_endpoint import stub_endpoint

TOOL = {"type": "function", "function": {"name": "python_repl", "parameters": {}}}


def events(*chunks: Any, content_type: str = "text/event-stream") -> web.Response:
    """A stream: text as it is, anything else as an event of JSON."""
    lines = [chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return web.Response(body="".join(lines).encode(), content_type=content_type)


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}],
    }


async def asked(answer: Any, **options: Any) -> Any:
    """The completion that a client makes of an answer, or its error; and how often the endpoint was asked."""
    async with stub_endpoint(lambda *_: answer) as stub, client(stub, retries=1, **options) as llm:
        try:
            return await llm.complete(HELLO, [TOOL]), len(stub.requests)
        except LLMError as error:
            return error, len(stub.requests)


READ = [
    ("Cohere", said("hi", "COMPLETE"), "hi", "stop"),
    ("a proxy that sends a delta", {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}, "hi", "stop"),
    ("OpenRouter keeps the line busy", web.Response(text="\n \n" + json.dumps(said("hi")), content_type="application/json"), "hi", "stop"),
    ("a byte order mark", web.Response(body=b"\xef\xbb\xbf" + json.dumps(said("hi")).encode()), "hi", "stop"),
    ("a server that streams unasked", events(delta("h"), delta("i"), delta(None, "stop"), "data: [DONE]\n\n"), "hi", "stop"),
    ("a stream called text", events(delta("hi", "stop"), content_type="text/plain"), "hi", "stop"),
    ("MiniMax", said("hi") | {"base_resp": {"status_code": 0, "status_msg": ""}}, "hi", "stop"),
    ("Anthropic's refusal", said(None, "refusal"), "", "refusal"),
    ("OpenAI's refusal", said(None, refusal="I cannot help."), "I cannot help.", "refusal"),
    ("Gemini's own name of a broken call", said(None, "function_call_filter: MALFORMED_FUNCTION_CALL"), "", UNREADABLE_CALL),
    ("Gemini calls an unknown tool", said(None, "UNEXPECTED_TOOL_CALL"), "", UNREADABLE_CALL),
    ("Bedrock", said("", "malformed_tool_use"), "", UNREADABLE_CALL),
    ("Groq", refusal("Failed to call a function.", 400, code="tool_use_failed", failed_generation="<function=x>"), "<function=x>", UNREADABLE_CALL),
    ("Ollama", refusal("error parsing tool call: raw='{\"code\": \"', err=unexpected end of JSON input", 500), "", UNREADABLE_CALL),
    ("llama.cpp", refusal("Failed to parse input at pos 12: <tool_call>", 500, type="server_error"), "", UNREADABLE_CALL),
    ("vLLM with harmony", refusal('unexpected tokens remaining in message header: Some("x")', 500), "", UNREADABLE_CALL),
    ("OpenAI's model error", refusal("The model produced invalid content.", 500, type="model_error"), "", UNREADABLE_CALL),
]  # fmt: skip


@pytest.mark.parametrize(("who", "answer", "text", "finish"), READ, ids=[row[0] for row in READ])
async def test_what_is_a_reply(who, answer, text, finish) -> None:
    completion, requests = await asked(answer)
    assert (completion.text, completion.finish_reason, requests) == (text, finish, 1)


CALLS = [
    ("one call in place of a list", call("1")),
    ("a list with a hole", [None, call("1")]),
    ("a custom tool", [{"id": "c1", "type": "custom", "custom": {"name": "python_repl", "input": {"code": "1"}}}]),
    (
        "parameters",
        [{"id": "c1", "type": "function", "function": {"name": "python_repl", "parameters": {"code": "1"}}}],
    ),
]


@pytest.mark.parametrize(("what", "calls"), CALLS, ids=[row[0] for row in CALLS])
async def test_what_is_a_tool_call(what, calls) -> None:
    completion, _ = await asked(said(None, "tool_calls", tool_calls=calls))
    assert [json.loads(one["function"]["arguments"]) for one in completion.tool_calls] == [{"code": "1"}]
    assert [(one["id"], one["function"]["name"]) for one in completion.tool_calls] == [("c1", "python_repl")]


NO_REPLY = [
    ("MiniMax, no balance", {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "insufficient balance", 1),
    ("MiniMax, rate limit", {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate limit", 2),
    ("Baidu", {"error_code": 336003, "error_msg": "the content of message is wrong"}, "content of message", 1),
    ("Cloudflare", {"success": False, "errors": [{"code": 5006, "message": "no such thing"}], "result": None}, "no such thing", 1),
    ("OpenRouter, in band", {"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "upstream died"}}}, "upstream died", 2),
    ("OpenRouter, in the choice", {"choices": [{"error": {"code": 429, "message": "slow down"}, "message": {"content": ""}}]}, "slow down", 2),
    ("Cohere, toxic", said("", "ERROR_TOXIC"), "withheld", 1),
    ("Cohere, failed", said("half", "ERROR"), "'error'", 2),
    ("Gemini, no reason", said(None, "OTHER"), "withheld", 1),
    ("Zhipu, network", said("half", "network_error"), "network_error", 2),
    ("Zhipu, filter", said("half", "sensitive"), "withheld", 1),
    ("Bedrock, filter", said("half", "guardrail_intervened"), "withheld", 1),
    ("Azure, filter of the reply", said(None, "content_filter"), "withheld", 1),
    ("Azure, filter of the prompt", refusal("The response was filtered due to the prompt triggering content management policy.", code="content_filter"), "filtered", 1),
    ("nothing at all", {"choices": [], "usage": {"prompt_tokens": 3}}, "no answer", 1),
    ("HF, the model is busy", (424, {"error": "Request failed during generation: Server error", "error_type": "generation"}), "during generation", 2),
    ("nginx, the client has gone", (499, {"message": "client closed request"}), "closed", 2),
    ("a stream with an error event", events("event: error\n", {"code": "InvalidParameter", "message": "bad things"}), "bad things", 1),
    ("an old vLLM breaks off its stream", events(delta("half"), {"object": "error", "message": "engine died", "code": 500}, "data: [DONE]\n\n"), "engine died", 2),
    ("Anthropic overloads in a stream", events(delta("half"), {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), "Overloaded", 2),
    ("a stream that breaks off", events(delta("half")), "ended before", 2),
    ("an address that has moved", web.Response(status=301, headers={"Location": "https://new.example.com/v1/chat/completions"}), "https://new.example.com", 1),
]  # fmt: skip


@pytest.mark.parametrize(("who", "answer", "words", "requests"), NO_REPLY, ids=[row[0] for row in NO_REPLY])
async def test_what_is_none(who, answer, words, requests) -> None:
    """`requests`: how often it was asked, where one more try may help."""
    error, asked_times = await asked(_again(answer))
    assert isinstance(error, LLMError)
    assert words in str(error)
    assert asked_times == requests


def _again(answer: Any) -> Any:
    """A response object can be sent once only."""
    if not isinstance(answer, web.Response):
        return answer

    class Again:
        def __await__(self):
            if False:
                yield
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    return Again()


REFUSED = [
    ("quota", (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}})),
    ("quota", (403, {"error": {"code": "AccountOverdueError", "message": "The request failed because your account has an overdue balance."}})),
    ("quota", (400, {"error": {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}})),
    ("quota", (403, {"code": "The caller does not have permission", "error": "Your newly created team doesn't have any credits yet."})),
    ("quota", (429, {"code": "exhausted", "error": "Your team has either used all available credits or reached its monthly spending limit."})),
    ("quota", (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}})),
    ("quota", (403, {"error": {"message": "Key limit exceeded (total limit).", "code": 403}})),
    ("quota", (402, {"error": "You have exceeded your monthly included credits"})),
    ("model", (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}})),
    ("model", (403, {"Message": "You don't have access to the model with the specified model ID."})),
    ("model", (404, {"error": "No models loaded. Please load a model in the developer page."})),
    ("model", (404, {"error": {"message": "Your organization must be verified to use the model `o3`."}})),
    ("model", (400, {"error": {"message": "Model `x` is not supported by any provider you have enabled."}})),
    ("api_key", (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}})),
    ("api_key", (401, {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "invalid token"})),
]  # fmt: skip


@pytest.mark.parametrize(("field", "answer"), REFUSED)
async def test_which_option_a_refusal_is_about(field, answer) -> None:
    async with stub_endpoint(lambda *_: answer) as stub, client(stub) as llm:
        with pytest.raises(EngineRefused) as caught:
            await llm.preflight()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "words",
    [
        "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        "系统检测到输入或生成内容可能包含不安全或敏感内容",
        "Input data may contain inappropriate content.",
        "Output blocked by content filtering policy",
        "input new_sensitive",
    ],
)
@pytest.mark.parametrize("status", [400, 403])
async def test_a_prompt_that_a_filter_refuses_does_not_stop_a_run(status, words) -> None:
    async with stub_endpoint(lambda *_: refusal(words, status)) as stub, client(stub) as llm:
        for _ in range(10):
            with pytest.raises(LLMError) as caught:
                await llm.complete(HELLO)
            assert not isinstance(caught.value, EngineRefused)


WAITS = [
    ("Rate limit reached. Please try again in 1m26.4s.", 86.4),
    ("Please try again in 6ms.", 0.006),
    ("Please retry after 12 seconds.", 12),
    ("Please retry in 34.5s.", 34.5),
    ('{"retryDelay": "34s"}', 34),
    ("Try again in 2 minutes", 120),
    ("Please wait 5 s", 5),
    ("Rate limit reached", 0),
    ("your prompt has 12 seconds of audio", 0),
]


@pytest.mark.parametrize(("words", "seconds"), WAITS)
def test_the_wait_that_words_ask_for(words, seconds) -> None:
    assert wait_in_words(words) == pytest.approx(seconds)


async def test_a_limit_of_a_minute_that_is_called_a_quota_is_waited_for() -> None:
    words = "You exceeded your current quota, please check your plan and billing details. Please retry in {}."
    for told, requests in (("34.5ms", 2), ("7200s", 1)):
        error = refusal(words.format(told), 429, code="RESOURCE_EXHAUSTED")
        async with stub_endpoint(lambda *_, error=error: error) as stub, client(stub, retries=1) as llm:
            with pytest.raises(LLMError):
                await llm.complete(HELLO)
            assert len(stub.requests) == requests


async def test_a_cap_that_holds_only_without_a_stream() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        if body["max_tokens"] > 4096 and not body.get("stream"):
            return refusal("Requests with max_tokens > 4096 must have stream=true.")
        return events(delta("hi", "stop")) if body.get("stream") else said("hi")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        await llm.complete(HELLO, None, Sampling(max_tokens=10_000))
    assert [(body["max_tokens"], body.get("stream")) for body in stub.bodies] == [(10_000, None), (10_000, True)]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Your organization must be verified to stream this model.", {"param": "stream", "code": "unsupported_value"}),
        ("Streaming is not supported for this model", {}),
        ("`stream` is not supported", {}),
    ],
)
async def test_an_endpoint_that_does_not_stream(words, error) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return refusal(words, **error) if "stream" in body else said("hi")

    async with stub_endpoint(answer) as stub, client(stub, stream=True) as llm:
        for _ in range(2):
            assert (await llm.complete(HELLO)).text == "hi"
        assert [sentence.partition(":")[0] for sentence in llm.adaptations] == ["replies are not streamed"]
    assert len(stub.bodies) == 3


async def test_an_endpoint_that_streams_but_does_not_know_the_options_of_streams() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        if "stream_options" in body:
            return refusal("stream_options: Extra inputs are not permitted", 422)
        return events(delta("hi", "stop")) if body.get("stream") else said("not streamed")

    async with stub_endpoint(answer) as stub, client(stub, stream=True) as llm:
        assert (await llm.complete(HELLO)).text == "hi"


TWO_CALLS = [
    {"role": "system", "content": "Be brief."},
    *HELLO,
    {"role": "assistant", "content": "both", "tool_calls": [call("1", "call_a1"), call("2", "call_b2")]},
    {"role": "tool", "tool_call_id": "call_a1", "content": "one"},
    {"role": "tool", "tool_call_id": "call_b2", "content": "two"},
]


async def test_a_template_that_takes_one_tool_call_a_message() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        several = any(len(message.get("tool_calls", ())) > 1 for message in body["messages"])
        return refusal("This model only supports single tool-calls at once!") if several else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete(TWO_CALLS, [TOOL])).text == "fine"
        assert "one a message" in llm.adaptations[0]
    sent = stub.bodies[-1]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert [message["content"] for message in sent[2:]] == ["both", "one", "", "two"]
    for calling, result in ((sent[2], sent[3]), (sent[4], sent[5])):
        assert [one["id"] for one in calling["tool_calls"]] == [result["tool_call_id"]]


async def test_ids_of_nine_letters() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        ids = [one["id"] for message in body["messages"] for one in message.get("tool_calls", ())]
        words = "Tool call id was call_a1 but must be a-z, A-Z, 0-9, with a length of 9."
        return refusal(words) if any(not (one.isalnum() and len(one) == 9) for one in ids) else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete(TWO_CALLS, [TOOL])).text == "fine"
    sent = stub.bodies[-1]["messages"]
    assert [one["id"] for one in sent[2]["tool_calls"]] == [message["tool_call_id"] for message in sent[3:]]


async def test_a_template_without_a_system_role() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        system = body["messages"][0]["role"] == "system"
        return refusal("Only user and assistant roles are supported!") if system else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete(TWO_CALLS[:2])).text == "fine"


async def test_a_refusal_of_the_history_is_no_unreadable_call() -> None:
    error, _ = await asked(refusal("messages[3]: could not parse tool call arguments"))
    assert isinstance(error, LLMError)
    assert not isinstance(error, ToolsRefused)


async def test_the_query_of_a_base_url_stands_behind_the_route() -> None:
    async with stub_endpoint(lambda *_: said("hi")) as stub:
        stub.base_url += "?api-version=2024-10-21"
        async with client(stub) as llm:
            assert (await llm.complete(HELLO)).text == "hi"
    assert stub.requests[0][0] == "/v1/chat/completions"


async def test_a_key_does_not_follow_a_redirect() -> None:
    async with stub_endpoint(lambda *_: said("stolen")) as other:
        moved = web.Response(status=307, headers={"Location": other.base_url + "/chat/completions"})
        async with stub_endpoint(lambda *_: moved) as stub, client(stub, api_key="secret-key") as llm:
            with pytest.raises(LLMError, match=r"answered 307"):
                await llm.complete(HELLO)
        assert other.requests == []


async def test_a_window_that_is_told_by_a_negative_limit() -> None:
    error, _ = await asked(refusal("max_tokens must be at least 1, got -904."))
    assert isinstance(error, ContextOverflow)
