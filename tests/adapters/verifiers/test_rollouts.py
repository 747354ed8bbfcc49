"""Rollouts through verifiers against a scripted endpoint: the same answers, scores and calls as without it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

import verifiers.v1 as vf

from rlm_env.registry import find_environment
from rlm_env.rollout import StopReason
from rlm_env.scaffolds import SCAFFOLDS, make_scaffold
from tests.adapters.verifiers.play import chat_reply, env_config, eval_client, play, single_traces
from tests.stub_endpoint import stub_endpoint
from tests.stubs import StubLLM, fenced

pytestmark = pytest.mark.slow

TINY = {"options": {"profile": "tiny"}}
FIRST = fenced("parts = [context[i:i + 200] for i in range(0, len(context), 200)]\nprint(len(parts))")
SECOND = fenced(
    'found = llm_batch(["Find it: " + part for part in parts])\n'
    'answer["content"] = "Answer: " + next((f for f in found if f != "no"), "?")\nanswer["ready"] = True'
)


def scripted(messages: list[dict[str, Any]]) -> str:
    """A root that splits the context and asks sub-LLMs, and sub-LLMs that look for a number."""
    if messages[0]["role"] == "system":
        turns = sum(message["role"] == "assistant" for message in messages)
        return [FIRST, SECOND][min(turns, 1)]
    words = messages[-1]["content"].replace(".", " ").split()
    return next((word for word in words if word.isdigit()), "no")


def endpoint():
    return stub_endpoint(lambda _, body: chat_reply(scripted(body["messages"])))


@pytest.mark.parametrize("scaffold", SCAFFOLDS)
async def test_answers_and_scores_are_those_of_our_own_evaluation(scaffold):
    config = env_config("needle-rlm", {"scaffold": scaffold, "tools": False}, num_tasks=3, **TINY)
    async with endpoint() as stub:
        traces = single_traces(await play(config, eval_client(stub.base_url)))
    environment = find_environment("needle-rlm", profile="tiny")
    ours = make_scaffold(scaffold, environment)
    try:
        for index, trace in enumerate(traces):
            task = environment.task("eval", index)
            rollout = await ours.rollout(task, StubLLM(scripted))
            assert trace.ok, trace.errors
            assert (trace.root_reply, trace.reward) == (rollout.answer, environment.score(task, rollout).value)
            assert trace.metrics["sub_calls"] == trace.metrics["sub_llm_call_count"] == len(rollout.sub_calls)
            assert trace.metrics["root_llm_turns"] == len(rollout.turns)
            assert trace.metrics["score_strict"] in (0.0, 1.0)
            assert trace.task.key == f"needle-rlm/eval/{task.id}"
            assert trace.info["rollout"]["stop_reason"] == rollout.stop_reason
    finally:
        await ours.aclose()


async def test_a_trace_holds_every_call_once_and_neither_context_nor_gold():
    config = env_config("needle-rlm", {"tools": False}, num_tasks=1, options={"lengths": 3000})
    async with endpoint() as stub:
        (trace,) = single_traces(await play(config, eval_client(stub.base_url)))
    task = find_environment("needle-rlm", lengths=3000).task("eval", 0)
    record = json.loads(trace.model_dump_json())
    assert len(trace.calls) == 2 + len(trace.state.rollout.sub_calls) == trace.num_turns
    assert str(task.context) not in json.dumps(record)
    assert len(task.gold) > 5
    assert task.gold not in json.dumps([record["task"], record["info"]["rollout"]["info"]])
    assert len(json.dumps(record["info"])) < 1500
    kinds = [link.type for node in trace.nodes for link in node.semantic_parents]
    assert set(kinds) == {"subagent_call"}  # the sub-calls' answers were read by no further turn


async def test_what_the_run_samples_with_is_what_is_sent_and_recorded():
    harness = {"rollout": {"root": {"temperature": 0.3, "max_tokens": 99}, "sub": {"top_p": 0.5}}, "tools": False}
    config = env_config("needle-rlm", harness, num_tasks=1, **TINY)
    async with endpoint() as stub:
        run = {"temperature": 0.7, "top_k": 40}
        (trace,) = single_traces(await play(config, eval_client(stub.base_url), run))
    recorded = trace.info["rollout"]["info"]["sampling"]
    assert (recorded["root"]["temperature"], recorded["root"]["max_tokens"]) == (0.7, 99)
    assert (recorded["sub"]["temperature"], recorded["sub"]["top_p"]) == (0.7, 0.5)
    for body in stub.bodies:
        role = "root" if body["messages"][0]["role"] == "system" else "sub"
        assert (body["temperature"], body["top_k"]) == (0.7, 40)
        assert body.get("top_p", 1.0) == recorded[role]["top_p"]
        assert body["max_tokens"] == recorded[role]["max_tokens"]
        assert recorded[role]["extra"] == {"top_k": 40}


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("max_turns", "max_turns"), ("max_total_tokens", "root_tokens"), ("max_output_tokens", "root_tokens")],
)
async def test_a_limit_of_verifiers_ends_the_rollout_with_what_it_had(limit, reason):
    reply = fenced('answer["content"] = "so far"')
    config = env_config("needle-rlm", {"tools": False}, num_tasks=1, agent={limit: 5}, **TINY)
    async with stub_endpoint(lambda *_: chat_reply(reply)) as stub:
        (trace,) = single_traces(await play(config, eval_client(stub.base_url)))
    assert (trace.ok, trace.stop_condition, trace.reward) == (True, limit, 0.0)
    assert (trace.root_reply, trace.info["rollout"]["stop_reason"]) == ("so far", reason)
    assert trace.state.rollout.stop_reason is not StopReason.ERROR


async def test_a_dead_engine_is_an_error_and_not_a_score_of_0():
    async with endpoint() as stub:
        address = stub.base_url
    config = env_config("needle-rlm", {"tools": False}, num_tasks=1, **TINY)
    (trace,) = single_traces(await play(config, eval_client(address)))
    assert not trace.ok
    assert (trace.errors[-1].type, trace.stop_condition) == ("ProviderError", "provider_error")
    assert all(reward is None for reward in trace.rewards.values())


async def test_a_reply_that_was_lost_on_its_way_is_asked_for_again_and_is_one_node(monkeypatch):
    import aiohttp

    from rlm_env.llm.http import Endpoint

    lost: set[str] = set()
    send = Endpoint._send_for_json

    async def losing(self, path, data, headers):
        reply = await send(self, path, data, headers)
        key = (headers or {}).get("Idempotency-Key", "")
        if key and key not in lost:
            lost.add(key)
            raise aiohttp.ServerDisconnectedError
        return reply

    monkeypatch.setattr(Endpoint, "_send_for_json", losing)
    config = env_config("needle-rlm", {"tools": False}, num_tasks=1, **TINY)
    async with endpoint() as stub:
        (trace,) = single_traces(await play(config, eval_client(stub.base_url)))
        asked = len(stub.requests)
    assert trace.ok
    assert len(lost) == asked == len(trace.calls) == trace.num_turns  # each sampled once, although sent twice


async def test_an_endless_environment_ends():
    taskset = vf.load_taskset(env_config("needle-rlm", num_tasks=7, **TINY).taskset)
    assert type(taskset).INFINITE is False
    assert [task.data.index for task in taskset] == [*range(7)]


async def test_an_endpoint_that_refuses_tools_is_asked_for_fences_once_and_for_all():
    refusal = {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'}}

    def answer(_, body):
        return (400, refusal) if "tools" in body else chat_reply(scripted(body["messages"]))

    config = env_config("needle-rlm", num_tasks=1, **TINY)
    environment = vf.load_environment(config)
    async with stub_endpoint(answer) as stub, environment.serving():
        context = vf.ModelContext(model="m", client=eval_client(stub.base_url))
        refused = []
        for task in [*environment.taskset] * 2:
            (slot,) = environment.slots(task)
            (trace,) = (await environment.run_slot(slot, context)).traces
            assert trace.ok
            assert trace.root_reply.startswith("Answer: ")
            refused.append(sum(call.error is not None for call in trace.calls))
    assert refused == [1, 0]


async def test_a_task_is_scored_once_and_its_judge_is_asked_before(workplace, monkeypatch):
    (workplace / "log").write_text("")
    config = env_config(
        "needle-rlm", {"tools": False}, environment="word-count", num_tasks=2, options={"judge": str(workplace / "log")}
    )
    reply = fenced('answer["content"] = str(context.split().count("spam"))\nanswer["ready"] = True')
    async with stub_endpoint(lambda *_: chat_reply(reply)) as stub:
        traces = single_traces(await play(config, eval_client(stub.base_url)))
    assert [trace.reward for trace in traces] == [1.0, 1.0]
    assert len((workplace / "log").read_text().splitlines()) == 2
    assert [trace.info["rollout"]["info"]["verdict"] for trace in traces] == [True, True]
    for trace in traces:  # as vf-replay does: the stored trace alone, without asking anybody
        task = type(vf.load_taskset(config.taskset)).task_type()(trace.task.data)
        stored = trace.model_copy(deep=True, update={"rewards": {}, "metrics": {}})
        stored.state = vf.State()
        await task.score(stored)
        assert stored.reward == 1.0
    assert len((workplace / "log").read_text().splitlines()) == 2


async def test_mistakes_are_named():
    with pytest.raises(ValueError, match="max_turnz"):
        env_config("needle-rlm", {"rollout": {"max_turnz": 3}})
    with pytest.raises(ValueError, match="unknown scaffold 'rlmm'"):
        env_config("needle-rlm", {"scaffold": "rlmm"})
    with pytest.raises(ValueError, match="tiny-rlmm"):
        env_config("needle-rlm", {"profile": "tiny-rlmm"})
    with pytest.raises(ValueError, match=r"taskset\.environment is not set"):
        vf.load_taskset(env_config("rlm-env", num_tasks=1).taskset)
    with pytest.raises(ValueError, match="no environment 'needle-rlmm'"):
        vf.load_taskset(env_config("rlm-env", environment="needle-rlmm").taskset)
    with pytest.raises(ValueError, match=r"(?i)extra inputs are not permitted|seeds"):
        env_config("needle-rlm", seeds=3)
    config = env_config("needle-rlm", num_tasks=1, agent={"runtime": {"type": "subprocess"}}, **TINY)
    async with endpoint() as stub:
        client = vf.TrainClientConfig(base_url=stub.base_url)
        (trace,) = single_traces(await play(config, client))
    assert "max_completion_tokens in prime-rl" in trace.errors[-1].message


async def test_tasks_are_made_in_any_order_and_at_once(workplace):
    from rlm_env.adapters.verifiers.source import KEPT_TASKS, TaskSource

    environment = find_environment("word-count")
    assert not environment.makes_any_task
    source = TaskSource(environment)
    wanted = [5, 0, 400, 399, 2, 5, 400]
    found = await asyncio.gather(*(asyncio.to_thread(source.task, "eval", index) for index in wanted))
    assert [task.id for task in found] == [f"eval-{index}" for index in wanted]
    assert len(source._kept) <= KEPT_TASKS
    with pytest.raises(IndexError, match="there are only 1000"):
        source.task("eval", 1000)
    assert source.task("train", 0).context != source.task("eval", 0).context
