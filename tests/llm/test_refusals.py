"""Refusals of key, model, account and address: when they stop a run, and what the first question says of them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from rlm_env.llm import EngineRefused, EngineUnavailable, LLMError, OpenAIChat, Request, Sampling
from rlm_env.messages import Usage
from tests.llm.replies import HELLO, client, refusal, said
from tests.stub_endpoint import stub_endpoint

KEY = refusal("Incorrect API key provided: sk-x.", 401, code="invalid_api_key")
MODEL = refusal("The model `m` does not exist or you do not have access to it.", 404, code="model_not_found")
LASTING = [
    (KEY, "api_key"),
    (refusal("Forbidden", 403), "api_key"),
    (refusal("API key not valid. Please pass a valid API key.", 400), "api_key"),
    (MODEL, "model"),
    (refusal("m is not a valid model ID", 400), "model"),
    (refusal("Model Not Exist", 400), "model"),
    (refusal("No endpoints found for m.", 404), "model"),
    (refusal("Insufficient credits. Add more using the web page", 402), "quota"),
    (refusal("You exceeded your current quota, please check your plan", 429, code="insufficient_quota"), "quota"),
    (refusal("Insufficient Balance", 402), "quota"),
    ((404, {"detail": "Not Found"}), "base_url"),
    ((405, {"detail": "Method Not Allowed"}), "base_url"),
]


@pytest.mark.parametrize(("answer", "field"), LASTING)
async def test_lasting_refusals_stop_after_a_few_in_a_row(answer, field) -> None:
    async with stub_endpoint(lambda *_: answer) as stub, client(stub) as llm:
        for _ in range(2):
            with pytest.raises(LLMError) as caught:
                await llm.complete(HELLO)
            assert not isinstance(caught.value, EngineUnavailable)
        with pytest.raises(EngineRefused, match=field) as caught:
            await llm.complete(HELLO)
        assert caught.value.field == field
    assert len(stub.requests) == 3  # none was worth another try


async def test_a_success_between_them_begins_the_count_again() -> None:
    replies = iter([KEY, KEY, said("x"), KEY, KEY, said("x")])
    async with stub_endpoint(lambda *_: next(replies)) as stub, client(stub, concurrency=1) as llm:
        results = await llm.complete_many([Request(HELLO)] * 6)
    assert not any(isinstance(result, EngineUnavailable) for result in results)
    assert len(stub.requests) == 6


@pytest.mark.parametrize(
    "answer",
    [
        refusal("Your input was flagged by moderation", 403),
        refusal("The response was filtered due to the prompt triggering the content management policy", 400),
        refusal("Rate limit reached", 429),
        refusal("upstream is down", 503),
        (413, "Request Entity Too Large"),
    ],
)
async def test_what_one_prompt_is_refused_for_does_not_stop_a_run(answer) -> None:
    async with stub_endpoint(lambda *_: answer) as stub, client(stub, retries=0) as llm:
        for _ in range(12):
            with pytest.raises(LLMError) as caught:
                await llm.complete(HELLO)
            assert not isinstance(caught.value, EngineUnavailable)


async def test_equal_refusals_of_every_request_stop_unless_one_has_succeeded() -> None:
    def answer(*_: Any) -> Any:
        number = len(stub.requests)
        return said("x") if number in good else refusal(f"this model is out of order (request {number})")

    for good in ({1}, set()):
        async with stub_endpoint(answer) as stub, client(stub) as llm:
            kinds = []
            for _ in range(9):
                try:
                    await llm.complete(HELLO)
                except LLMError as error:
                    kinds.append(type(error))
            assert (EngineRefused in kinds) == (not good)


async def test_the_first_question_tells_its_cost_and_what_is_refused() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        for name in ("tools", "temperature"):
            if name in body:
                return refusal(f"Unsupported parameter: '{name}' is not supported with this model.", param=name)
        return said("ready")

    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        assert await llm.preflight(Sampling(temperature=0.3)) == Usage(7, 2, 0, 1)
        assert not llm.supports_tools
        assert len(llm.adaptations) == 2
    assert {body["max_tokens"] for body in stub.bodies} == {256}


@pytest.mark.parametrize("reply", [said(None, "length", reasoning_content="hm"), said("", "tool_calls", tool_calls=[])])
async def test_any_reply_to_the_first_question_will_do(reply) -> None:
    async with stub_endpoint(lambda *_: reply) as stub, client(stub) as llm:
        assert (await llm.preflight()).calls == 1


def endpoint_at_v1(models: list[str]) -> Any:
    """Answers below /v1 only, and chats only with the models in its list."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": name} for name in models]}
        if path == "/v1/chat/completions":
            return said("ready") if body["model"] in models else MODEL
        return 404, {"detail": "Not Found"}

    return answer


@pytest.mark.parametrize(
    ("answer", "field", "words"),
    [
        (lambda *_: KEY, "api_key", "check the API key"),
        (lambda *_: LASTING[7][0], "quota", "no credit"),
        (endpoint_at_v1(["gpt-m", "other"]), "model", "there is no 'm' here; there is .*gpt-m"),
        (lambda *_: (404, {"detail": "Not Found"}), "base_url", "there is no chat at"),
        (lambda *_: web.Response(text="<html>a page</html>"), "base_url", "there is no chat at"),
        (lambda *_: refusal("out of order"), None, "out of order"),
    ],
)
async def test_why_the_first_question_was_not_answered(answer, field, words) -> None:
    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        with pytest.raises(EngineRefused, match=words) as caught:
            await llm.preflight()
    assert caught.value.field == field


async def test_a_base_url_without_its_end() -> None:
    async with stub_endpoint(endpoint_at_v1(["m"])) as stub, client(stub, retries=0) as llm:
        llm._endpoint.base_url = stub.base_url.removesuffix("/v1")
        with pytest.raises(EngineRefused, match=rf"write {stub.base_url}\)") as caught:
            await llm.preflight()
    assert caught.value.field == "base_url"


async def test_no_server() -> None:
    async with OpenAIChat("m", "http://127.0.0.1:9/v1", retries=0) as llm:
        with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:9.*check the address"):
            await llm.preflight()
