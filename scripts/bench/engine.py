#!/usr/bin/env python3
"""Short calls per second on the real vLLM, as `llm_batch` makes them: about 25 tokens in, 3 out.

    python scripts/bench/engine.py [--quick] [--model tiny-rlm]

Four ways to ask 768 different prompts, all of the same engine, interleaved:

  batch             one complete_many: one HTTP request with 768 token-id prompts
  joined            768 concurrent complete: single requests, joined on the way within 3 ms
  pooled            one HTTP request each, 64 in flight, on our pooled client
  one after another one HTTP request each, the next when the last has answered (a quarter of the prompts)
  openai client     one HTTP request each, 64 in flight, on the `openai` package's client (httpx), where installed

Medians of calls per second, and how many times as fast the batch is. One JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rlm_env.llm import Request, Sampling, TokenPolicy, VLLMServer
from rlm_env.messages import Completion
from rlm_env.runs.models import packaged_models
from rlm_env.runs.profile import load_profile

PROMPTS = 768
IN_FLIGHT = 64
SHORT = Sampling(max_tokens=3, temperature=1.0)
WORDS = ("apple", "river", "stone", "cloud", "green", "seven", "market", "window", "letter", "garden")


def requests(count: int) -> list[Request]:
    """Fresh prompts every time, so that no prefix cache answers them."""
    return [
        Request([{"role": "user", "content": f"{i}: {' '.join(random.choices(WORDS, k=3))}?"}], sampling=SHORT)
        for i in range(count)
    ]


def check(results: list[Completion]) -> None:
    failed = [result for result in results if not isinstance(result, Completion)]
    assert not failed, failed[0]


async def batch(policy: TokenPolicy, _: TokenPolicy) -> int:
    check(await policy.complete_many(requests(PROMPTS)))
    return PROMPTS


async def joined(policy: TokenPolicy, _: TokenPolicy) -> int:
    check(await asyncio.gather(*(policy.complete(r.messages, None, SHORT) for r in requests(PROMPTS))))
    return PROMPTS


async def pooled(_: TokenPolicy, single: TokenPolicy) -> int:
    check(await single.complete_many(requests(PROMPTS)))
    return PROMPTS


async def one_after_another(_: TokenPolicy, single: TokenPolicy) -> int:
    check([await single.complete(r.messages, None, SHORT) for r in requests(PROMPTS // 4)])
    return PROMPTS // 4


async def openai_client(policy: TokenPolicy, _: TokenPolicy) -> int:
    import openai

    slots = asyncio.Semaphore(IN_FLIGHT)

    async def ask(client: openai.AsyncOpenAI, request: Request) -> None:
        prompt = policy.tokens.prompt(request.messages, None).ids
        async with slots:
            reply = await client.completions.create(
                model=policy.name, prompt=prompt, max_tokens=3, logprobs=0, extra_body={"return_token_ids": True}
            )
        assert reply.choices[0].finish_reason in ("length", "stop")

    async with openai.AsyncOpenAI(base_url=policy.base_url, api_key="none", max_retries=0) as client:
        await asyncio.gather(*(ask(client, request) for request in requests(PROMPTS)))
    return PROMPTS


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five")
    parser.add_argument("--model", default="tiny-rlm", help="a shipped model or a model folder")
    args = parser.parse_args()
    model = packaged_models().get(args.model, Path(args.model))
    renderer = load_profile(model).get("renderer")
    ways: dict[str, Callable[[TokenPolicy, TokenPolicy], Awaitable[int]]] = {
        "batch": batch,
        "joined": joined,
        "pooled": pooled,
        "one after another": one_after_another,
        "openai client": openai_client,
    }
    try:
        import openai  # noqa: F401
    except ImportError:
        del ways["openai client"]
    started = time.perf_counter()
    async with VLLMServer(model) as server:
        print(json.dumps({"bench": "engine", "start_s": round(time.perf_counter() - started, 1)}), flush=True)
        policy = server.policy(renderer=renderer)
        single = server.policy(renderer=renderer, batches=False, coalesce_ms=0, concurrency=IN_FLIGHT)
        tokens = statistics.mean(policy.count_tokens(request.messages) for request in requests(100))
        rates: dict[str, list[float]] = {}
        for round_number in range(3 if args.quick else 6):
            for name, way in ways.items():
                start = time.perf_counter()
                calls = await way(policy, single)
                if round_number:  # the first warms up
                    rates.setdefault(name, []).append(calls / (time.perf_counter() - start))
        await policy.aclose()
        await single.aclose()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        line = {"bench": "engine", "way": name, "calls_per_s": round(median, 1), "prompt_tokens": round(tokens, 1)}
        print(json.dumps(line | {"batch_is_times_as_fast": round(medians["batch"] / median, 2)}))


if __name__ == "__main__":
    asyncio.run(main())
