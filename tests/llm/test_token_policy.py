"""How prompts travel: what shares a request, what does not, and what a refusal does. Against a stub of vLLM's route."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("renderers")
pytest.importorskip("transformers")

from rlm_env.llm import ContextOverflow, EngineUnavailable, LLMError, Request, Sampling, TokenPolicy
from rlm_env.llm.token_batches import probe_logprobs_mode
from rlm_env.messages import Completion
from tests.stub_endpoint import StubEndpoint, stub_endpoint, vllm_completions
from tests.tiny_model import SPECIAL_TOKENS, make_tokenizer

IM_END = SPECIAL_TOKENS.index("<|im_end|>")
SHORT = Sampling(max_tokens=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    return path


def echo(prompt: list[int], max_tokens: int) -> list[int]:
    """A deterministic engine: the last content token of the prompt, then the end."""
    return [prompt[len(prompt) - 2 - prompt[::-1].index(IM_END)], IM_END]


def answer_echo(_: str, body: dict[str, Any]) -> Any:
    return vllm_completions(body, echo, IM_END)


@contextlib.asynccontextmanager
async def policy_on(stub: StubEndpoint, folder: Path, **options: Any) -> AsyncIterator[TokenPolicy]:
    policy = TokenPolicy("tiny", stub.base_url, folder, **{"retries": 0, "coalesce_ms": 20.0, **options})
    try:
        yield policy
    finally:
        await policy.aclose()


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def sizes(stub: StubEndpoint) -> list[int]:
    return [len(body["prompt"]) if isinstance(body["prompt"][0], list) else 1 for body in stub.bodies]


async def test_completion_carries_ids_and_logprobs(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder) as policy:
        completion = await policy.complete(ask("abc"), sampling=Sampling(max_tokens=9, temperature=0.7, seed=3))
        (body,) = stub.bodies
    assert body["prompt"] == completion.prompt_ids == policy.tokens.prompt(ask("abc"), None).ids
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.7, 3)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert (body["logprobs"], body["return_token_ids"], body["stop_token_ids"]) == (0, True, [IM_END])
    assert completion.completion_ids == echo(completion.prompt_ids, 9)
    assert completion.logprobs == [-0.5, -0.5]
    assert completion.text == policy.tokens.tokenizer.decode(completion.completion_ids[:1])
    assert completion.finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (len(completion.prompt_ids), 2)


async def test_batch_is_one_request_and_keeps_order(folder: Path) -> None:
    texts = [f"{letter}" for letter in "abcdefghij" * 5]
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder) as policy:
        results = await policy.complete_many([Request(ask(text), sampling=SHORT) for text in texts])
    assert sizes(stub) == [50]
    assert [result.text for result in results] == texts


async def test_settings_that_would_have_no_effect_are_refused(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder) as policy:
        with pytest.raises(LLMError, match="renderer"):
            await policy.complete(
                ask("a"), sampling=Sampling(extra={"chat_template_kwargs": {"enable_thinking": False}})
            )
    assert not stub.requests


async def test_empty_batch(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder) as policy:
        assert await policy.complete_many([]) == []
    assert not stub.requests


async def test_batch_is_split_at_the_largest_size_and_by_settings(folder: Path) -> None:
    warm = Sampling(max_tokens=4, temperature=0.5)
    seeded = Sampling(max_tokens=4, seed=1)
    requests = [Request(ask("a"), sampling=SHORT) for _ in range(70)] + [Request(ask("b"), sampling=warm)] * 40
    requests += [Request(ask("c"), sampling=seeded)] * 3
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder, max_batch=32) as policy:
        results = await policy.complete_many(requests)
    assert sorted(sizes(stub)) == [1, 1, 1, 6, 8, 32, 32, 32]  # a seed never shares
    assert "".join(result.text for result in results) == "a" * 70 + "b" * 40 + "c" * 3


async def test_concurrent_single_requests_are_joined(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder) as policy:
        texts = "abcdefghijklmnop"
        results = await asyncio.gather(*(policy.complete(ask(text), sampling=SHORT) for text in texts))
        assert "".join(result.text for result in results) == texts
        assert sizes(stub) == [16]
        stub.requests.clear()
        lone = Sampling(max_tokens=4, seed=1)
        long = Sampling(max_tokens=4000)
        await asyncio.gather(*(policy.complete(ask("a"), sampling=s) for s in (lone, lone, long, long)))
        assert sizes(stub) == [1, 1, 1, 1]  # own seeds; long ones would wait for the slowest
        stub.requests.clear()
        await asyncio.gather(*(policy.complete_many([Request(ask("a"), sampling=SHORT)] * 3) for _ in range(4)))
        assert sizes(stub) == [12]


async def test_joining_can_be_turned_off(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder, coalesce_ms=0) as policy:
        await asyncio.gather(*(policy.complete(ask("a"), sampling=SHORT) for _ in range(5)))
    assert sizes(stub) == [1] * 5


async def test_a_cancelled_caller_leaves_the_others_alone(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder) as policy:
        calls = [asyncio.ensure_future(policy.complete(ask(text), sampling=SHORT)) for text in "abc"]
        await asyncio.sleep(0)
        calls[1].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [results[0].text, results[2].text] == ["a", "c"]
    assert isinstance(results[1], asyncio.CancelledError)


async def test_when_all_are_cancelled_the_request_is(folder: Path) -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def never(*_: Any) -> Any:
        arrived.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with stub_endpoint(never) as stub, policy_on(stub, folder) as policy:
        calls = [asyncio.ensure_future(policy.complete(ask(text), sampling=SHORT)) for text in "ab"]
        await arrived.wait()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.wait_for(ended.wait(), 10)  # the engine sees that nobody waits any more


async def test_window_is_checked_before_any_request(folder: Path) -> None:
    async with stub_endpoint(answer_echo) as stub, policy_on(stub, folder, context_window=40) as policy:
        prompt = policy.count_tokens(ask("z" * 60))
        assert prompt > 40
        with pytest.raises(ContextOverflow) as caught:
            await policy.complete(ask("z" * 60))
        assert (caught.value.prompt_tokens, caught.value.window) == (prompt, 40)
        assert not stub.requests
        good, bad, also_good = await policy.complete_many([Request(ask(t)) for t in ("a", "z" * 60, "b")])
        assert isinstance(bad, ContextOverflow)
        assert good.text + also_good.text == "ab"
        assert stub.bodies[0]["max_tokens"] == 40 - policy.count_tokens(ask("a"))


async def test_prompts_cut_by_the_window_share_requests_and_get_all_their_room(folder: Path) -> None:
    def endless(prompt: list[int], max_tokens: int) -> list[int]:
        return [300 + (len(prompt) + i) % 100 for i in range(max_tokens)]

    def answer(_: str, body: dict[str, Any]) -> Any:
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        if max(map(len, prompts)) + body["max_tokens"] > 200:
            return 400, {"error": {"message": "This model's maximum context length is 200 tokens"}}
        return vllm_completions(body, endless, IM_END)

    async with stub_endpoint(answer) as stub, policy_on(stub, folder, context_window=200) as policy:
        requests = [Request(ask("z" * n), sampling=Sampling(max_tokens=4096)) for n in range(1, 120)]
        results = await policy.complete_many(requests)
    for result in results:
        assert len(result.prompt_ids) + len(result.completion_ids) == 200
        assert result.completion_ids == endless(result.prompt_ids, len(result.completion_ids))
        assert len(result.logprobs) == len(result.completion_ids) == result.usage.completion_tokens
    assert len(stub.requests) < 30  # and not one per prompt


async def test_refused_prompt_does_not_fail_its_batch(folder: Path) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        if any(len(prompt) > 30 for prompt in prompts):
            return 400, {"error": {"message": "maximum context length is 30 tokens"}}
        return vllm_completions(body, echo, IM_END)

    async with stub_endpoint(answer) as stub, policy_on(stub, folder) as policy:
        await policy.complete_many([Request(ask("a"), sampling=SHORT)] * 40)
        stub.requests.clear()
        texts = ["a"] * 50 + ["z" * 40] + ["b"] * 49
        results = await policy.complete_many([Request(ask(text), sampling=SHORT) for text in texts])
    assert isinstance(results[50], ContextOverflow)
    assert "".join(result.text for result in results if isinstance(result, Completion)) == "a" * 50 + "b" * 49
    assert len(stub.requests) <= 15  # halves, not one by one


async def test_endpoint_without_batches_gets_pooled_single_requests(folder: Path) -> None:
    running = peak = 0

    async def answer(_: str, body: dict[str, Any]) -> Any:
        nonlocal running, peak
        if isinstance(body["prompt"][0], list):
            return 400, {"error": {"message": "prompt must be a string or a list of integers"}}
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return vllm_completions(body, echo, IM_END)

    async with stub_endpoint(answer) as stub, policy_on(stub, folder, concurrency=8) as policy:
        for _ in range(2):
            results = await policy.complete_many([Request(ask("a"), sampling=SHORT)] * 40)
            assert [result.text for result in results] == ["a"] * 40
    assert sizes(stub) == [40] + [1] * 80  # it is asked once
    assert peak == 8


async def test_wrong_credentials_are_not_asked_one_by_one(folder: Path) -> None:
    refusal = 404, {"error": {"message": "no such model"}}
    async with stub_endpoint(lambda *_: refusal) as stub, policy_on(stub, folder) as policy:
        results = await policy.complete_many([Request(ask("a"), sampling=SHORT)] * 40)
    assert all(isinstance(result, LLMError) and "no such model" in str(result) for result in results)
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply: reply.update(choices=[]),
        lambda reply: reply["choices"][0].update(token_ids=None),
        lambda reply: reply["choices"][0].update(token_ids=[5]),
        lambda reply: reply["choices"][0].update(logprobs=None),
        lambda reply: reply.pop("choices"),
        lambda reply: reply["choices"][0].update(finish_reason="abort"),
        lambda reply: reply["choices"][0]["token_ids"].__setitem__(0, -1),
        lambda reply: reply["choices"][0]["token_ids"].__setitem__(0, 5.0),
        lambda reply: reply["choices"][0]["token_ids"].__setitem__(0, 1000),
        lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].__setitem__(0, 3.0),
        lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].__setitem__(0, "-1"),
        lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].__setitem__(0, -math.inf),
    ],
)
async def test_reply_without_ids_or_logprobs_is_an_error(folder: Path, spoil: Any) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        reply = vllm_completions(body, echo, IM_END)
        spoil(reply)
        return reply

    async with stub_endpoint(answer) as stub, policy_on(stub, folder, vocabulary=1000) as policy:
        with pytest.raises(LLMError, match=r"unknown shape|aborted"):
            await policy.complete(ask("a"), sampling=SHORT)


async def test_a_logprob_that_rounding_has_put_above_0_is_0(folder: Path) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        reply = vllm_completions(body, echo, IM_END)
        reply["choices"][0]["logprobs"]["token_logprobs"][0] = 1e-7
        return reply

    async with stub_endpoint(answer) as stub, policy_on(stub, folder) as policy:
        assert max((await policy.complete(ask("a"), sampling=SHORT)).logprobs) == 0.0


async def test_connect_asks_for_name_window_and_logprobs(folder: Path) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": "tiny", "max_model_len": 321}]}
        if path == "/version":
            return {"version": "0.30.0"}
        top = {"a": -1.0, "b": -1.5} if body["temperature"] == 1.0 else {"b": -1.4, "a": -0.4}
        return {"choices": [{"logprobs": {"top_logprobs": [top]}}]}

    async with stub_endpoint(answer) as stub:
        policy = await TokenPolicy.connect(stub.base_url, folder)
        with pytest.raises(LLMError, match="serves no model 'other'; it serves tiny"):
            await TokenPolicy.connect(stub.base_url, folder, model="other")
        await policy.aclose()
    facts = await policy.describe()
    assert (facts["model"], facts["context_window"]) == ("tiny", 321)
    assert (facts["engine"], facts["engine_version"]) == ("vllm", "0.30.0")
    assert facts["logprobs_mode"] == "processed_logprobs"
    assert json.dumps(facts)


async def test_a_policy_without_connect_asks_for_the_version_when_described(folder: Path) -> None:
    async with stub_endpoint(lambda *_: {"version": "0.30.1"}) as stub, policy_on(stub, folder) as policy:
        facts = await policy.describe()
        assert (facts["engine_version"], facts["logprobs_mode"]) == ("0.30.1", None)
        await policy.describe()
    assert [path for path, _, _ in stub.requests] == ["/version"]


async def test_logprobs_before_temperature_are_told_apart(folder: Path) -> None:
    reply = {"choices": [{"logprobs": {"top_logprobs": [{"a": -1.0, "b": -1.5}]}}]}
    async with stub_endpoint(lambda *_: reply) as stub, policy_on(stub, folder) as policy:
        assert await probe_logprobs_mode(policy._endpoint, "tiny", [1]) == "raw_logprobs"


async def test_nobody_there(folder: Path) -> None:
    policy = TokenPolicy("tiny", "http://127.0.0.1:9/v1", folder, retries=0)
    with pytest.raises(EngineUnavailable):
        await policy.complete(ask("a"))
    with pytest.raises(EngineUnavailable):
        await TokenPolicy.connect("http://127.0.0.1:9/v1", folder, retries=0)
    await policy.aclose()
