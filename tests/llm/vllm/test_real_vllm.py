"""The real vLLM: what it samples and says of it, batches, conversations, new weights. All tests share the session's
server."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlm_env.llm import (
    ContextOverflow,
    LLMError,
    OpenAIChat,
    Request,
    Sampling,
    TokenPolicy,
    VLLMServer,
    VLLMStartError,
)
from rlm_env.llm.vllm.install import vllm_version
from rlm_env.messages import Completion
from rlm_env.prompts import load_prompt, render_prompt

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture
async def policy(vllm_server: VLLMServer) -> AsyncIterator[TokenPolicy]:
    policy = vllm_server.policy(renderer="default")
    yield policy
    await policy.aclose()


QUESTION = [
    {"role": "system", "content": render_prompt(load_prompt("tiny"), use_tool=False)},
    {
        "role": "user",
        "content": "Question: In the above data, how many data points should be classified as label 'food'? Give your "
        "final answer in the form 'Answer: number'.\nContext: str, 1,193 characters, 18 lines",
    },
]
"""What the shipped model has learned to answer, at length and in many ways; most other prompts get one word of it."""


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def short_requests(count: int, **sampling: Any) -> list[Request]:
    settings = Sampling(**{"max_tokens": 12, "temperature": 0.0, **sampling})
    return [Request(ask(f"line {i}: item {i * 7 % 13}"), sampling=settings) for i in range(count)]


async def test_logprobs_are_those_of_the_model_after_temperature(policy: TokenPolicy, tiny_model_path: Path) -> None:
    """Against transformers' own forward, float32, temperature 0.7."""
    import torch
    from transformers import AutoModelForCausalLM

    temperature = 0.7
    results = await policy.complete_many(short_requests(16, temperature=temperature, max_tokens=24))
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32).eval()
    differences = []
    for result in results:
        ids = torch.tensor([result.prompt_ids + result.completion_ids])
        with torch.no_grad():
            logits = model(ids).logits[0, len(result.prompt_ids) - 1 : -1].float()
        expected = torch.log_softmax(logits / temperature, -1)[range(len(result.completion_ids)), result.completion_ids]
        differences += (expected.numpy() - np.array(result.logprobs)).tolist()
    assert len(differences) > 16
    assert float(np.mean(np.abs(differences))) < 1e-3
    assert float(np.max(np.abs(differences))) < 1e-2


async def test_stop_token_stays_in_the_ids(policy: TokenPolicy) -> None:
    """Every reply ends with a stop token, or was cut off; the text shows none."""
    for result in await policy.complete_many(short_requests(64, temperature=1.0, max_tokens=200)):
        ended = result.completion_ids[-1] in policy.tokens.stop_token_ids
        assert result.finish_reason == ("stop" if ended else "length")
        assert len(result.completion_ids) == len(result.logprobs) == result.usage.completion_tokens
        assert not set(result.completion_ids[:-1]) & set(policy.tokens.stop_token_ids)
        assert "<|im_end|>" not in result.text


async def test_stop_string_keeps_the_ids_up_to_it(policy: TokenPolicy) -> None:
    free = await policy.complete(QUESTION, sampling=Sampling(max_tokens=30, temperature=0.0))
    pieces = [policy.tokens.tokenizer.decode([token]) for token in free.completion_ids]
    stop = next(piece for piece in pieces[1:] if piece.strip() and "\ufffd" not in piece)
    cut = await policy.complete(QUESTION, sampling=Sampling(max_tokens=30, temperature=0.0, stop=(stop,)))
    assert cut.finish_reason == "stop"
    assert cut.completion_ids == free.completion_ids[: len(cut.completion_ids)]
    assert len(cut.completion_ids) < len(free.completion_ids)


async def test_batch_equals_single_requests(vllm_server: VLLMServer, policy: TokenPolicy) -> None:
    """At temperature 0. What else is in the batch may move a near-tie: differences are counted, few are allowed."""
    requests = short_requests(96)
    single = vllm_server.policy(renderer="default", batches=False, coalesce_ms=0)
    together, alone = await policy.complete_many(requests), await single.complete_many(requests)
    await single.aclose()
    different = sum(a.completion_ids != b.completion_ids for a, b in zip(together, alone, strict=True))
    print(f"{different} of {len(requests)} differ between one request and {len(requests)}")
    assert different <= len(requests) // 20


async def test_a_seed_makes_a_sample_repeatable(policy: TokenPolicy) -> None:
    async def sample(seed: int) -> list[int] | None:
        sampling = Sampling(max_tokens=64, temperature=1.0, seed=seed)
        return (await policy.complete(QUESTION, sampling=sampling)).completion_ids

    first = await sample(7)
    assert await sample(7) == first
    assert any([await sample(seed) != first for seed in range(8, 16)])


async def test_equal_prompts_are_independent_samples(policy: TokenPolicy) -> None:
    sampling = Sampling(max_tokens=64, temperature=1.5)
    results = await policy.complete_many([Request(QUESTION, sampling=sampling)] * 16)
    assert len({tuple(result.completion_ids) for result in results}) > 1


def requests_served(server: VLLMServer) -> int:
    """HTTP requests to /v1/completions, by the server's own count."""
    with urllib.request.urlopen(f"{server.root_url}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    counts = [line for line in lines if line.startswith("http_requests_total") and '"/v1/completions"' in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in counts))


async def test_how_many_requests_travel(vllm_server: VLLMServer, policy: TokenPolicy) -> None:
    requests = short_requests(200, max_tokens=2)
    before = requests_served(vllm_server)
    await policy.complete_many(requests)
    assert requests_served(vllm_server) - before == 1
    before = requests_served(vllm_server)
    await asyncio.gather(*(policy.complete(r.messages, None, r.sampling) for r in requests))
    assert 1 <= requests_served(vllm_server) - before <= 20


@pytest.mark.parametrize("renderer", ["default", {"name": "qwen3", "thinking_retention": "all"}])
async def test_conversation_is_one_growing_sequence(vllm_server: VLLMServer, renderer: Any) -> None:
    """Cut-off replies and replies of noise included: every prompt begins with all that was sampled before."""
    try:
        policy = vllm_server.policy(renderer=renderer)
    except AssertionError:
        pytest.skip("the served model lacks Qwen3's control tokens")
    messages, seen, extended = ask("look at the context"), [], 0
    for turn in range(5):
        completion = await policy.complete(messages, sampling=Sampling(max_tokens=10 + turn, temperature=1.0))
        assert completion.prompt_ids[: len(seen)] == seen
        extended += bool(seen)
        seen = completion.prompt_ids + completion.completion_ids
        messages = [*messages, completion.message(), {"role": "user", "content": f"output {turn}: 42\n"}]
        if not policy.tokens.prompt(messages, None).extended:
            break  # noise that spells a control token is re-encoded: an honest fork
    await policy.aclose()
    assert extended >= 1


async def test_window(vllm_server: VLLMServer, policy: TokenPolicy) -> None:
    window = policy.context_window
    assert window == vllm_server.max_model_len
    with pytest.raises(ContextOverflow) as caught:
        await policy.complete(ask("line of text\n" * window))
    assert caught.value.prompt_tokens > window
    long = ask("z " * (window // 4))
    full = await policy.complete(
        long, sampling=Sampling(max_tokens=100_000, temperature=1.0, extra={"ignore_eos": True, "stop_token_ids": []})
    )
    assert len(full.prompt_ids) + len(full.completion_ids) == window
    unaware = vllm_server.policy(renderer="default")
    unaware.context_window = None  # then the engine's refusal tells, and only the long prompt is hit
    many = [
        *short_requests(40),
        Request(ask("line of text\n" * window), sampling=Sampling(max_tokens=12, temperature=0)),
    ]
    results = await unaware.complete_many(many)
    await unaware.aclose()
    assert isinstance(results[-1], ContextOverflow)
    assert all(isinstance(result, Completion) for result in results[:-1])


async def test_new_weights_without_a_restart(
    vllm_server: VLLMServer, policy: TokenPolicy, tiny_model_path: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = await policy.complete_many(short_requests(4))
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-3.0)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(tmp_path)
    try:
        await vllm_server.reload_weights(tmp_path)
        changed = await policy.complete_many(short_requests(4))
        result = changed[0]
        with torch.no_grad():
            logits = model(torch.tensor([result.prompt_ids + result.completion_ids])).logits[
                0, len(result.prompt_ids) - 1 : -1
            ]
        expected = logits.argmax(-1).tolist()
        assert result.completion_ids == expected
    finally:
        await vllm_server.reload_weights(tiny_model_path)
    after = await policy.complete_many(short_requests(4))
    assert [r.completion_ids for r in after] == [r.completion_ids for r in before]
    assert [r.completion_ids for r in changed] != [r.completion_ids for r in before]
    with pytest.raises(LLMError, match="not found"):
        await vllm_server.reload_weights(tmp_path / "nowhere")


async def test_connect_to_a_running_engine(vllm_server: VLLMServer, tiny_model_path: Path) -> None:
    policy = await TokenPolicy.connect(vllm_server.base_url, tiny_model_path, renderer="default")
    facts = await policy.describe()
    await policy.aclose()
    assert facts["model"] == vllm_server.served_name
    assert facts["context_window"] == vllm_server.max_model_len
    assert facts["engine"] == "vllm"
    assert facts["engine_version"].startswith("0.")
    assert facts["logprobs_mode"] == "processed_logprobs"  # measured, not assumed


async def test_the_same_engine_as_an_openai_endpoint(vllm_server: VLLMServer) -> None:
    llm = OpenAIChat(vllm_server.served_name, vllm_server.base_url, retries=0)
    facts = await llm.describe()
    assert (facts["engine"], facts["engine_version"]) == ("vllm", vllm_version())
    completion = await llm.complete(ask("say"), sampling=Sampling(max_tokens=8, temperature=0.0))
    assert 0 < completion.usage.completion_tokens <= 8
    assert completion.usage.prompt_tokens > 0
    roomy = await llm.complete(ask("say"), sampling=Sampling(max_tokens=1_000_000, temperature=1.0))
    assert roomy.usage.completion_tokens > 0
    with pytest.raises(ContextOverflow):
        await llm.complete(ask("line of text\n" * vllm_server.max_model_len), sampling=Sampling(max_tokens=8))
    await llm.aclose()


@pytest.mark.slow  # a start of its own, which fails
async def test_window_that_the_model_lacks(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(VLLMStartError, match=r"max_model_len") as caught:
        await VLLMServer(tiny_model_path, max_model_len=1_000_000, log_path=tmp_path / "vllm.log").__aenter__()
    first_line = str(caught.value).splitlines()[0]
    assert "exit status 1" in first_line
    assert "1000000" in first_line.replace(",", "")  # the cause is named at once, not only in the log
