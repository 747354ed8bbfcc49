"""verifiers on a real vLLM: its commands, its environment server, and answers equal to those of our own evaluation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

import tomli_w
import verifiers.v1 as vf
from transformers import AutoTokenizer
from verifiers.v1.serve import EnvClient
from verifiers.v1.serve.server import EnvServer

from rlm_env.adapters.verifiers.harness import RLMHarness
from rlm_env.llm import VLLMServer
from rlm_env.registry import load_environment
from rlm_env.runs.profile import load_profile
from tests.adapters.verifiers.play import (
    branch_rows,
    chat_reply,
    env_config,
    eval_client,
    play,
    sample_rows,
    single_traces,
    train_client,
)
from tests.stub_endpoint import stub_endpoint
from tests.stubs import StubLLM, fenced

pytestmark = pytest.mark.vllm

OOLONG = {"vocabulary": "easy", "lengths": [512]}
CELL = fenced(
    'lines = [line for line in context.split("\\n") if line]\n'
    'labels = llm_batch(["Classify: " + line for line in lines[:6]])\n'
    'answer["content"] = "Answer: " + " ".join(str(label) for label in labels)\nanswer["ready"] = True'
)


def run(folder: Path, *command: str) -> str:
    """What one of verifiers' commands prints."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run_file(folder: Path, name: str, values: dict[str, Any]) -> str:
    (folder / f"{name}.toml").write_text(tomli_w.dumps({**values, "push": False, "run": {"dir": name}}))
    return f"{name}.toml"


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """Task -> its trace."""
    episodes = [json.loads(line) for line in (folder / "traces.jsonl").read_text().splitlines()]
    return {trace["task"]["data"]["id"]: trace for episode in episodes for trace in episode["traces"]}


@pytest.mark.parametrize("client", ["eval", "train"])
async def test_commands_of_verifiers_play_and_score_again(client, vllm_server: VLLMServer, tiny_model_path, tmp_path):
    engine: dict[str, Any] = {"type": client, "base_url": vllm_server.base_url, "api_key_var": "NO_SUCH_KEY"}
    if client == "train":
        engine |= {"renderer": {"name": "default"}, "renderer_model_name": str(tiny_model_path)}
    harness = {"id": "oolong-rlm", "profile": "tiny-rlm"}
    values = {
        "model": vllm_server.served_name,
        "client": engine,
        "sampling": {"temperature": 0.0, "max_tokens": 256},
        "select": {"limit": 4},
        "env": {"taskset": {"id": "oolong-rlm", "options": OOLONG}, "agent": {"harness": harness}},
    }
    await asyncio.to_thread(run, tmp_path, "vf-eval", "@", run_file(tmp_path, "run", values), "--no-rich")
    traces = stored(tmp_path / "outputs" / "run")
    profile = load_profile(tiny_model_path)
    profile.pop("renderer")
    greedy = {"temperature": 0.0, "max_tokens": 256}
    ours = {**OOLONG, **profile, "root": greedy, "sub": greedy}
    async with load_environment("oolong-rlm", **ours) as environment, vllm_server.policy(renderer="default") as policy:
        for task in environment.tasks("eval").take(4):
            rollout = await environment.rollout(task, policy)
            trace = traces[task.id]
            assert trace["ok"]
            assert trace["root_reply"] == rollout.answer
            assert trace["rewards"]["task_score"]["score"] == environment.score(task, rollout).value
    if client == "eval":
        return
    assert all(any(node.get("token_ids") for node in trace["nodes"]) for trace in traces.values())
    await asyncio.to_thread(run, tmp_path, "vf-replay", "outputs/run", "--output-dir", "again", "--no-rich")
    again = stored(tmp_path / "again")
    assert {task: trace["rewards"] for task, trace in again.items()} == {
        task: trace["rewards"] for task, trace in traces.items()
    }


async def test_sub_calls_of_a_scripted_root_are_those_of_our_own_evaluation(vllm_server: VLLMServer, tiny_model_path):
    """The root is scripted, its sub-calls are answered by the engine: over chat completions, and over token ids."""
    greedy = {"temperature": 0.0, "max_tokens": 8}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    rollout = {"action": "fence", "prompt": "tiny"}
    options = {**OOLONG, **rollout, "root": greedy, "sub": greedy}
    async with load_environment("oolong-rlm", **options) as environment, vllm_server.policy(renderer="default") as sub:
        (task,) = environment.tasks("eval").take(1)
        ours = await environment.rollout(task, StubLLM(lambda _: CELL), sub)
        value = environment.score(task, ours).value

    async def forward(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/chat/completions" and body["messages"][0]["role"] == "system":
            return chat_reply(CELL)
        if path == "/inference/v1/generate" and "Classify: " not in tokenizer.decode(body["token_ids"]):
            ids = [*tokenizer(CELL, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            content = [{"token": f"token_id:{token}", "logprob": -0.5} for token in ids]
            choice = {"index": 0, "token_ids": ids, "logprobs": {"content": content}, "finish_reason": "stop"}
            return {"request_id": "r", "choices": [choice]}
        async with aiohttp.ClientSession() as session:
            method = "POST" if body else "GET"
            async with session.request(method, vllm_server.root_url + path, json=body or None) as reply:
                return reply.status, await reply.json()

    config = env_config("oolong-rlm", {"tools": False, "rollout": rollout}, options=OOLONG, num_tasks=1)
    async with stub_endpoint(forward) as stub:
        for client in (eval_client(stub.base_url), train_client(stub.base_url, tiny_model_path, "default")):
            (trace,) = single_traces(await play(config, client, greedy, model=vllm_server.served_name))
            assert trace.ok, trace.errors
            theirs = trace.state.rollout
            assert len(theirs.sub_calls) == 6
            assert [call.text for call in theirs.sub_calls] == [call.text for call in ours.sub_calls]
            assert (theirs.answer, trace.reward) == (ours.answer, value)


async def test_samples_over_the_wire_are_those_of_our_trainer(vllm_server: VLLMServer, tiny_model_path, monkeypatch):
    """At temperature 1, with sub-calls, through the environment server that prime-rl uses."""
    seen: dict[str, vf.Trace] = {}
    launch = RLMHarness.launch

    async def watched(self, ctx, trace, *rest):
        seen[trace.id] = trace
        return await launch(self, ctx, trace, *rest)

    monkeypatch.setattr(RLMHarness, "launch", watched)
    config = env_config("oolong-rlm", {"profile": "tiny-rlm"}, options=OOLONG, num_tasks=4)
    server = EnvServer(config, address="tcp://127.0.0.1:0")
    serving = asyncio.create_task(server.run())
    client = EnvClient(server.address)
    try:
        await client.wait_for_server_startup()
        engine = train_client(vllm_server.base_url, tiny_model_path, "default")
        tasks = [task.data.model_dump(mode="json") for task in vf.load_taskset(config.taskset)] * 3
        sampling = vf.SamplingConfig(temperature=1.0, max_tokens=256)
        runs = (client.run(engine, vllm_server.served_name, sampling, task) for task in tasks)
        traces = single_traces(await asyncio.gather(*runs))
    finally:
        await client.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    total: Counter[str] = Counter()
    for trace in traces:
        assert trace.ok, trace.errors
        rollout = seen[trace.id].state.rollout
        rows = sample_rows(rollout)
        assert branch_rows(trace) == branch_rows(seen[trace.id]) == rows
        total.update(rollouts=1, sub_calls=len(rollout.sub_calls), samples=rows.total(), branches=len(trace.branches))
    assert total["rollouts"] == 12
    assert total["sub_calls"] > 12
    assert total["samples"] == total["branches"]
