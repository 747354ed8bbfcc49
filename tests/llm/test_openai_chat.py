"""The client of OpenAI-compatible endpoints, against a local one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from rlm_env.llm import ContextOverflow, EngineUnavailable, LLMError, OpenAIChat, Request, Sampling
from rlm_env.llm.http import NoReply
from tests.stub_endpoint import stub_endpoint

KEY = "sk-very-secret-0123456789"
HELLO = [{"role": "user", "content": "hello"}]


def reply(content: str | None = "hi", usage: dict[str, Any] | None = None, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage or {"prompt_tokens": 7, "completion_tokens": 2}}


def client(stub: Any, **options: Any) -> OpenAIChat:
    llm = OpenAIChat("m", stub.base_url, **{"retries": 3, **options})
    llm._endpoint._backoff = 0.001
    return llm


async def test_request_and_reply() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1'}}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    async with stub_endpoint(lambda *_: reply(None, usage, tool_calls=[call], reasoning_content="hmm")) as stub:
        llm = client(stub, api_key=KEY)
        sampling = Sampling(temperature=0.3, max_tokens=12, stop=("END",), seed=4, extra={"min_p": 0.1, "top_p": None})
        history = [*HELLO, {"role": "assistant", "content": "a", "reasoning_content": "old"}]
        completion = await llm.complete(history, [tool], sampling)
        await llm.aclose()
    (path, body, headers), *others = stub.requests
    assert not others
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "m",
        "messages": [*HELLO, {"role": "assistant", "content": "a"}],
        "temperature": 0.3,
        "max_tokens": 12,
        "stop": ["END"],
        "seed": 4,
        "min_p": 0.1,
        "tools": [tool],
    }
    assert completion.text == ""
    assert completion.reasoning == "hmm"
    assert completion.tool_calls == [call]
    assert completion.finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (9, 4)
    assert (completion.usage.cached_tokens, completion.usage.calls) == (5, 1)
    assert completion.completion_ids is None


async def test_reasoning_field_of_newer_servers() -> None:
    async with stub_endpoint(lambda *_: reply("x", reasoning="because")) as stub:
        llm = client(stub)
        assert (await llm.complete(HELLO)).reasoning == "because"
        await llm.aclose()


async def test_a_refusal_is_kept_and_told_as_the_end_of_the_reply() -> None:
    async with stub_endpoint(lambda *_: reply(None, refusal="I can't help with that.")) as stub:
        llm = client(stub)
        completion = await llm.complete(HELLO)
        await llm.aclose()
    assert (completion.text, completion.finish_reason) == ("I can't help with that.", "refusal")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_passing_trouble_is_retried(status: int) -> None:
    answers = iter([(status, {"error": {"message": "later"}}), (status, {}), (200, reply())])
    async with stub_endpoint(lambda *_: next(answers)) as stub:
        llm = client(stub)
        assert (await llm.complete(HELLO)).text == "hi"
        await llm.aclose()
    assert len(stub.requests) == 3


async def test_lasting_trouble_is_one_line_and_without_the_key() -> None:
    def answer(*_: Any) -> Any:
        return 401, {"error": {"message": f"Incorrect API key provided:\n{KEY}. Get one"}}

    async with stub_endpoint(answer) as stub:
        llm = client(stub, api_key=KEY)
        with pytest.raises(LLMError) as caught:
            await llm.complete(HELLO)
        await llm.aclose()
    assert len(stub.requests) == 1  # not worth another try
    message = str(caught.value)
    assert "401" in message
    assert "\n" not in message
    assert KEY not in message
    assert KEY not in repr(caught.value.__dict__)
    assert KEY not in json.dumps(await llm.describe())


async def test_the_engine_and_its_version_are_recorded() -> None:
    """A vLLM tells its version beside /v1; it is asked once, with the key."""

    def answer(path: str, _: Any) -> Any:
        return {"version": "0.30.0"} if path == "/version" else (404, {"error": "no such route"})

    async with stub_endpoint(answer) as stub:
        llm = client(stub, api_key=KEY, context_window=4096)
        facts = await llm.describe()
        assert await llm.describe() == facts
        await llm.aclose()
    assert facts == {"model": "m", "context_window": 4096, "engine": "vllm", "engine_version": "0.30.0"} | {
        "adaptations": []
    }
    assert [(path, headers["Authorization"]) for path, _, headers in stub.requests] == [("/version", f"Bearer {KEY}")]


@pytest.mark.parametrize("reply", [(404, {}), (200, {"version": 3}), (200, []), (200, "old")])
async def test_an_engine_that_tells_no_version(reply: Any) -> None:
    async with stub_endpoint(lambda *_: reply) as stub:
        llm = client(stub)
        facts = await llm.describe()
        await llm.aclose()
    assert (facts["engine"], facts["engine_version"]) == ("openai-compatible", None)
    assert len(stub.requests) == 1


async def test_user_and_password_of_the_address_stay_private() -> None:
    llm = OpenAIChat("m", "http://me:hunter2@127.0.0.1:9/v1", retries=0)
    assert "hunter2" not in json.dumps(await llm.describe())
    with pytest.raises(EngineUnavailable) as caught:
        await llm.complete(HELLO)
    assert "hunter2" not in str(caught.value)
    await llm.aclose()


async def test_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    async with stub_endpoint(lambda *_: reply()) as stub:
        llm = client(stub, api_key_env="SOME_KEY")
        await llm.complete(HELLO)
        await llm.aclose()
    assert stub.requests[0][2]["Authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(LLMError, match="SOME_KEY"):
        OpenAIChat("m", api_key_env="SOME_KEY")


OVERFLOWS = [
    # OpenAI
    (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. "
        "Please reduce the length of the messages.",
        9000,
        8192,
    ),
    # vLLM 0.30
    (
        "This model's maximum context length is 1024 tokens. However, you requested 100 output tokens and your "
        "prompt contains 2000 input tokens, for a total of 2100 tokens. (parameter=input_tokens, value=2000)",
        2000,
        1024,
    ),
    (
        "This model's maximum context length is 1024 tokens. However, you requested 8 output tokens and your prompt "
        "contains 30000 characters (more than 25400 characters, which is the upper bound for 1016 input tokens).",
        None,
        1024,
    ),
    # Anthropic
    ("prompt is too long: 208310 tokens > 200000 maximum", 208310, 200000),
    ("Your input exceeds the context window of this model. Please adjust your input and try again.", None, None),
    ("the request exceeds the available context size (4096 tokens), try increasing it", None, 4096),
]


@pytest.mark.parametrize(("message", "prompt_tokens", "window"), OVERFLOWS)
async def test_context_overflow(message: str, prompt_tokens: int | None, window: int | None) -> None:
    async with stub_endpoint(lambda *_: (400, {"error": {"message": message, "code": 400}})) as stub:
        llm = client(stub)
        with pytest.raises(ContextOverflow) as caught:
            await llm.complete(HELLO)
        await llm.aclose()
    assert (caught.value.prompt_tokens, caught.value.window) == (prompt_tokens, window)


async def test_another_400_is_no_overflow() -> None:
    async with stub_endpoint(lambda *_: (400, {"error": {"message": "temperature must be at most 2"}})) as stub:
        llm = client(stub)
        with pytest.raises(LLMError, match="temperature must be") as caught:
            await llm.complete(HELLO)
        await llm.aclose()
    assert not isinstance(caught.value, ContextOverflow)


async def test_limit_is_lowered_to_what_is_left_of_the_window() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        asked = body["max_tokens"]
        if asked > 1024:
            text = (
                f"max_tokens={asked} cannot be greater than max_model_len=max_total_tokens=1024. Please request fewer"
            )
            return 400, {"error": {"message": text}}
        if asked + 1000 > 1024:
            text = (
                "This model's maximum context length is 1024 tokens. However, you requested "
                f"{asked} output tokens and your prompt contains 1000 input tokens"
            )
            return 400, {"error": {"message": text}}
        return reply()

    async with stub_endpoint(answer) as stub:
        llm = client(stub)
        await llm.complete(HELLO, sampling=Sampling(max_tokens=4096))
        await llm.aclose()
    assert [body["max_tokens"] for body in stub.bodies] == [4096, 1023, 24]
    assert llm.context_window == 1024


async def test_limit_is_lowered_where_the_prompt_s_length_is_not_told() -> None:
    """vLLM stops counting a prompt that is too long together with the output."""

    def answer(_: str, body: dict[str, Any]) -> Any:
        asked = body["max_tokens"]
        if asked + prompt > 1024:
            text = (
                f"This model's maximum context length is 1024 tokens. However, you requested {asked} output tokens "
                f"and your prompt contains at least {1025 - asked} input tokens"
            )
            return 400, {"error": {"message": text}}
        return reply()

    async with stub_endpoint(answer) as stub:
        llm = client(stub)
        prompt = 700
        await llm.complete(HELLO, sampling=Sampling(max_tokens=1000))
        prompt = 2000
        with pytest.raises(ContextOverflow) as caught:
            await llm.complete(HELLO, sampling=Sampling(max_tokens=1000))
        await llm.aclose()
    assert [body["max_tokens"] for body in stub.bodies] == [1000, 250, 1000, 250, 62]
    assert caught.value.window == 1024


async def test_other_name_of_the_limit() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}}
        return reply()

    async with stub_endpoint(answer) as stub:
        llm = client(stub)
        await llm.complete(HELLO)
        await llm.complete(HELLO)
        await llm.aclose()
    assert len(stub.requests) == 3  # learnt once
    assert stub.bodies[-1]["max_completion_tokens"] == 4096


async def test_nobody_there() -> None:
    llm = OpenAIChat("m", "http://127.0.0.1:9/v1", retries=1)
    llm._endpoint._backoff = 0.001
    with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:9"):
        await llm.complete(HELLO)
    await llm.aclose()


async def test_time_out_and_nonsense_are_errors_of_one_line() -> None:
    async def slow(*_: Any) -> Any:
        await asyncio.sleep(5)

    async with stub_endpoint(slow) as stub:
        llm = client(stub, timeout=0.05)
        with pytest.raises(NoReply, match="no reply"):
            await llm.complete(HELLO)
        await llm.aclose()
    for nonsense in (web.Response(text="<html>proxy</html>"), {"choices": []}, {"choices": [{}]}, [1]):
        async with stub_endpoint(lambda *_, nonsense=nonsense: nonsense) as stub:
            llm = client(stub)
            with pytest.raises(LLMError, match=r"not JSON|unknown shape"):
                await llm.complete(HELLO)
            await llm.aclose()


async def test_batch_keeps_order_and_failures_apart() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        text = body["messages"][0]["content"]
        return (400, {"error": "bad"}) if text == "3" else reply(text)

    async with stub_endpoint(answer) as stub:
        llm = client(stub, concurrency=4)
        results = await llm.complete_many([Request([{"role": "user", "content": str(i)}]) for i in range(8)])
        await llm.aclose()
    assert isinstance(results[3], LLMError)
    assert [r.text for i, r in enumerate(results) if i != 3] == ["0", "1", "2", "4", "5", "6", "7"]


def test_one_client_over_several_event_loops(recwarn: pytest.WarningsRecorder) -> None:
    async def use(llm: OpenAIChat | None) -> OpenAIChat:
        async with stub_endpoint(lambda *_: reply()) as stub:
            llm = llm or client(stub)
            llm._endpoint.base_url = stub.base_url
            assert (await llm.complete(HELLO)).text == "hi"
        return llm

    llm = asyncio.run(use(None))
    asyncio.run(use(llm))
    asyncio.run(llm.aclose())
    assert not llm._endpoint._sessions
    assert not [w for w in recwarn if "Unclosed" in str(w.message)]
