"""The shipped tiny-rlm in deepdive-rlm on the real vLLM: it asks as a root LLM, walks through the web as a sub-LLM, and
what it sampled becomes samples for training."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from statistics import fmean

import pytest

from deepdive_rlm import DeepDive
from rlm_env.llm import Sampling
from rlm_env.runs.profile import load_profile
from rlm_env.tools.box import ToolBox
from rlm_env.train.learner.samples import SampleKind, rollout_samples
from tests.tiny_rlm.web import MODEL, played, web

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
WINDOW = 2048
TASKS = 24


@pytest.fixture
async def policy(vllm_server):
    policy = vllm_server.policy(renderer=load_profile(MODEL)["renderer"])
    yield policy
    await policy.aclose()


async def test_as_a_sub_llm_it_finds_with_the_tools_what_a_scripted_root_asks_for(policy):
    async with web() as env:
        tasks = env.tasks("eval").take(2 * TASKS)
        rollouts = await played(env, tasks, policy, scripted_root=True)
        scores = [env.score(task, rollout) for task, rollout in zip(tasks, rollouts, strict=True)]
    called = sum(rollout.metrics["tool_calls"] for rollout in rollouts)
    assert called >= 2 * TASKS
    assert sum(rollout.metrics["tool_calls_failed"] for rollout in rollouts) / called <= 0.2
    assert fmean(score.metrics["hop_coverage"] for score in scores) >= 0.4
    assert sum(score.value for score in scores) >= 3  # of 48: the last step of the walk is where most are lost
    tokens = [len(r.prompt_ids) + len(r.completion_ids) for roll in rollouts for c in roll.sub_calls for r in c.replies]
    assert max(tokens) < WINDOW


async def test_each_sampled_token_is_trained_once_after_the_ids_that_the_engine_had(policy):
    async with web(sub=Sampling(temperature=1.0, max_tokens=112)) as env:
        tasks = env.tasks("train").take(TASKS)
        rollouts = await played(env, tasks, policy, scripted_root=False)
    in_one_piece = []
    for rollout in rollouts:
        samples = rollout_samples(rollout)
        replies = [*rollout.turns, *(reply for call in rollout.sub_calls for reply in call.replies)]
        assert sum(sample.trained_tokens for sample in samples) == sum(len(reply.completion_ids) for reply in replies)
        walks = [call for call in rollout.sub_calls if call.tool_turns]
        plain = len(rollout.sub_calls) - len(walks)
        subs = [sample for sample in samples if sample.kind is SampleKind.SUB]
        in_one_piece += [len(subs) - plain == len(walks)] if walks else []
        for sample in subs:
            text = policy.tokens.tokenizer.decode(sample.token_ids)
            produced = policy.tokens.tokenizer.decode(
                [i for i, m in zip(sample.token_ids, sample.mask, strict=True) if m]
            )
            assert "Tools:\nsearch_web(query, count, page)" in text or not walks
            assert "<tool_response>" not in produced
            assert len(sample) <= WINDOW
    assert len(in_one_piece) >= TASKS / 4  # as many rollouts have a sub-LLM that called tools
    assert fmean(in_one_piece) >= 0.8  # a call that is no valid JSON, or is spaced in another way, begins a new sample


async def test_the_engine_writes_tools_calls_and_results_as_the_policy_does(policy, vllm_server):
    environment = DeepDive(profile="tiny")
    schemas = ToolBox(environment.tools(environment.task("train", 0))).schemas
    function = {"name": "search_web", "arguments": json.dumps({"query": 'a "bridge"', "count": 1})}
    call = {"id": "c", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": "Find: bridge; stands in a city; founded"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1. Old Bridge\nhttp://a.example/wiki/old-bridge"},
    ]
    body = {"model": vllm_server.served_name, "messages": messages, "tools": schemas, "add_generation_prompt": True}
    address = f"{vllm_server.base_url.removesuffix('/v1')}/tokenize"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with await asyncio.to_thread(urllib.request.urlopen, request) as reply:
        assert json.load(reply)["tokens"] == policy.tokens.prompt(messages, schemas).ids
