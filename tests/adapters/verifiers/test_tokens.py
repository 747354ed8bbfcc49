"""Tokens through verifiers: what our trainer would train of a rollout is what prime-rl trains of its trace."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")
pytest.importorskip("transformers", reason="needs the extra tokens")

import verifiers.v1 as vf
from verifiers.v1.configs.cli.eval import EvalConfig
from verifiers.v1.serve import EnvClient
from verifiers.v1.serve.server import EnvServer

from rlm_env import registry
from rlm_env.adapters.verifiers import source
from rlm_env.adapters.verifiers.traces import TraceRun, rollout_episode
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, StopReason
from rlm_env.task import Task
from tests.adapters.verifiers.play import (
    branch_rows,
    env_config,
    generating,
    play,
    sample_rows,
    single_traces,
    train_client,
)
from tests.stub_endpoint import stub_endpoint
from tests.stubs import fenced
from tests.tiny_model import make_tokenizer

pytestmark = pytest.mark.slow

RUN = {"temperature": 1.0, "max_tokens": 64}


class Colors(Environment):
    """Sums of counts that only a tool tells."""

    name = "colors"

    def tasks(self, split):
        for index in range(2):
            yield Task("How many in all?", "red blue green", str(6 + index))

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)

    def tools(self, task):
        def count(color: str) -> str:
            """How many there are.

            Args:
                color: its name
            """
            return str(len(color) - 2)

        return [count]


@pytest.fixture
def colors(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.environment_maker
    monkeypatch.setattr(registry, "environment_maker", lambda name: Colors if name == Colors.name else known(name))
    source._source.cache_clear()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return folder


def thinking(text: str) -> str:
    return f"<think>\nI think of {len(text)}.\n</think>\n\n{text}"


def calling(name: str, **arguments: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


ROOT = (
    calling("python_repl", code="colors = context.split(); print(colors)"),
    calling("python_repl", code="counts = llm_batch(['Count ' + c for c in colors]); print(counts)"),
    "I look again.\n\n" + calling("python_repl", code="answer['content'] = str(sum(int(c) for c in counts))"),
    calling("python_repl", code="answer['ready'] = True"),
)


def scripted(prompt: str) -> str:
    """A root of four thinking turns with native calls, and sub-LLMs that call a tool and answer with its result."""
    head, _, conversation = prompt.partition("<|im_start|>user\n")
    turns = conversation.count("<|im_start|>assistant")
    if '"python_repl"' in head:
        return thinking(ROOT[turns - 1])
    if turns == 1:
        return thinking(calling("count", color=conversation.split()[1].split("<")[0]))
    return thinking(conversation.rsplit("<tool_response>\n", 1)[1].split("\n")[0])


def exported_trace(rollout: Rollout) -> vf.Trace:
    """The trace of a stored rollout, stored and read."""
    env = {"taskset": {"id": "rlm-env", "environment": "colors"}, "agent": {"harness": {"id": "rlm-env"}}}
    run = TraceRun(EvalConfig.model_validate({"env": env}), datetime.now(UTC))
    record = rollout_episode(Rollout.from_json(rollout.to_json()), run, None).to_record(float_decimals=None)
    (trace,) = vf.WireEpisode.model_validate(json.loads(json.dumps(record))).traces
    return trace


def by_role(trace: vf.Trace) -> list[list[tuple[str, str]]]:
    """Roles and texts of every conversation."""
    return sorted(
        [(message.role, str(message.content or "").strip()) for message in branch.messages] for branch in trace.branches
    )


async def test_turns_of_a_thinking_model_with_tools_are_one_branch_each_conversation(colors, tokenizer_folder):
    config = env_config("needle-rlm", environment="colors", num_tasks=2)
    async with stub_endpoint(generating(make_tokenizer(), scripted)) as stub:
        client = train_client(stub.base_url, tokenizer_folder, "qwen3")
        traces = single_traces(await play(config, client, RUN))
    assert [trace.reward for trace in traces] == [1.0, 0.0]
    for trace in traces:
        assert trace.ok, trace.errors
        rollout = trace.state.rollout
        assert [len(turn.completion_ids) > 5 and turn.reasoning is not None for turn in rollout.turns] == [True] * 4
        assert [len(call.replies) for call in rollout.sub_calls] == [2, 2, 2]
        rows = sample_rows(rollout)
        assert rows.total() == 4  # the root's four turns, and three sub-calls of two turns
        assert branch_rows(trace) == rows
        assert len(trace.branches) == 4
        assert trace.num_turns == len(trace.calls) == 10
        exported = exported_trace(rollout)
        assert branch_rows(exported) == rows
        assert by_role(exported) == by_role(trace)


@pytest.mark.parametrize(("kept", "branches"), [({"thinking_retention": "all"}, 2), ({}, 4)])
async def test_turns_of_a_thinking_model_in_fences(colors, tokenizer_folder, kept, branches):
    """Each observation is a new question of the user, before which Qwen3's template drops earlier thoughts: then every
    turn begins a sample of its own. `thinking_retention` keeps them, and the turns are one."""
    cells = (
        "print(context)",
        "n = llm_batch([context])[0]; print(n)",
        "answer['content'] = '6'; answer['ready'] = True",
    )

    def fences(prompt: str) -> str:
        if "<|im_start|>system" not in prompt:
            return thinking("6")
        return thinking(fenced(cells[prompt.count("<|im_start|>assistant") - 1]))

    harness = {"tools": False, "rollout": {"tools_for": "none"}}
    config = env_config("needle-rlm", harness, environment="colors", num_tasks=1)
    async with stub_endpoint(generating(make_tokenizer(), fences)) as stub:
        client = train_client(stub.base_url, tokenizer_folder, "qwen3", **kept)
        (trace,) = single_traces(await play(config, client, RUN))
    assert (trace.ok, trace.reward, len(trace.state.rollout.turns)) == (True, 1.0, 3)
    rows = sample_rows(trace.state.rollout)
    assert rows.total() == len(trace.branches) == branches
    assert branch_rows(trace) == branch_rows(exported_trace(trace.state.rollout)) == rows


async def test_the_same_over_the_wire(colors, tokenizer_folder):
    config = env_config("needle-rlm", environment="colors", num_tasks=2)
    server = EnvServer(config, address="tcp://127.0.0.1:0")
    seen: dict[str, vf.Trace] = {}
    run_slot = server.env.run_slot

    async def watched(slot: Any, *rest: Any, **named: Any) -> vf.Episode:
        episode = await run_slot(slot, *rest, **named)
        seen.update((trace.id, trace) for trace in episode.traces)
        return episode

    server.env.run_slot = watched
    serving = asyncio.create_task(server.run())
    client = EnvClient(server.address)
    try:
        await client.wait_for_server_startup()
        async with stub_endpoint(generating(make_tokenizer(), scripted)) as stub:
            engine = train_client(stub.base_url, tokenizer_folder, "qwen3")
            tasks = [task.data.model_dump(mode="json") for task in vf.load_taskset(config.taskset)] * 2
            runs = (client.run(engine, "m", vf.SamplingConfig(**RUN), task) for task in tasks)
            traces = single_traces(await asyncio.gather(*runs))
    finally:
        await client.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert len(traces) == len(seen) == 4
    for trace in traces:
        here = seen[trace.id].state.rollout
        assert branch_rows(trace) == branch_rows(seen[trace.id]) == sample_rows(here)
        assert (trace.reward, trace.root_reply) == (float(here.answer == "6" == here.gold), here.answer)
        assert {link.type for node in trace.nodes for link in node.semantic_parents} == {
            "subagent_call",
            "subagent_return",
        }


async def test_a_prompt_that_outgrows_the_window_is_an_overflow_and_no_error(colors, tokenizer_folder):
    answer = generating(make_tokenizer(), scripted)

    def small(path: str, body: dict[str, Any]) -> Any:
        return {"data": [{"id": "m", "max_model_len": 1100}]} if path == "/v1/models" else answer(path, body)

    config = env_config("needle-rlm", environment="colors", num_tasks=1)
    async with stub_endpoint(small) as stub:
        client = train_client(stub.base_url, tokenizer_folder, "qwen3")
        (trace,) = single_traces(await play(config, client, RUN))
    assert trace.ok, trace.errors
    assert trace.state.rollout.stop_reason is StopReason.CONTEXT_OVERFLOW
    assert trace.reward == 0.0


async def test_sampling_is_the_run_s_and_nothing_of_ours(colors, tokenizer_folder):
    harness = {"profile": "tiny-rlm", "rollout": {"sub": {"temperature": 0.0}}}
    config = env_config("needle-rlm", harness, environment="colors", num_tasks=1)
    async with stub_endpoint(generating(make_tokenizer(), scripted)) as stub:
        client = train_client(stub.base_url, tokenizer_folder, "qwen3")
        (trace,) = single_traces(await play(config, client, {**RUN, "temperature": 0.5, "top_k": 20}))
        sent = [body["sampling_params"] for path, body, _ in stub.requests if path == "/inference/v1/generate"]
    recorded = trace.info["rollout"]["info"]["sampling"]
    for role in ("root", "sub"):
        assert (recorded[role]["temperature"], recorded[role]["max_tokens"]) == (0.5, 64)
        assert recorded[role]["extra"] == {"top_k": 20}
    assert {(one["temperature"], one["max_tokens"], one["top_k"]) for one in sent} == {(0.5, 64, 20)}
