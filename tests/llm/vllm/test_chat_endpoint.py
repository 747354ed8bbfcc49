"""Rollouts on the real vLLM by its address, as at any other endpoint: without a parser of tool calls, which is its
default, and with one. That one is also an engine which cannot be trained with, and at last it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from rlm_env import ReplConfig, load_environment
from rlm_env.environment import Environment
from rlm_env.llm import EngineUnavailable, OpenAIChat, Request, Sampling, VLLMServer
from rlm_env.rollout import Rollout
from rlm_env.runs.errors import ConfigError
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from rlm_env.train.sync.remote_engine import RemoteEngine
from tests.llm.vllm.processes import exists, group_of, wait_for
from tests.stubs import fenced, script
from tests.tiny_rlm.web import played, web

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="session")]

PARSER = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
RAW = ("--logprobs-mode", "raw_logprobs")
"""What no chat notices, and no training can do with."""
TASK = Task("q", "context", gold="x", id="t")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vllm_with_parser(tiny_model_path: Path) -> AsyncIterator[VLLMServer]:
    async with VLLMServer(tiny_model_path, extra_args=PARSER + RAW) as server:
        await server.warm_up()
        yield server


@pytest.fixture(params=["no parser", "hermes"])
def served(request: pytest.FixtureRequest) -> tuple[VLLMServer, bool]:
    """A server, and whether it parses tool calls."""
    parses = request.param == "hermes"
    return request.getfixturevalue("vllm_with_parser" if parses else "vllm_server"), parses


def chat(server: VLLMServer) -> OpenAIChat:
    return OpenAIChat(server.served_name, f"{server.base_url.removesuffix('/v1')}/v1", retries=1)


class Looking(Environment):
    """Sub-LLMs may look words up."""

    def tasks(self, split):
        yield TASK

    def score(self, task, rollout):
        return 0.0

    def tools(self, task):
        async def look(word: str) -> str:
            """Looks a word up.

            Args:
                word: the word to look up
            """
            return f"{word}: found"

        return [look]


async def asked(llm: OpenAIChat, **options) -> Rollout:
    """A rollout of a scripted root LLM that asks two sub-LLMs."""
    code = 'r = llm_batch(["one", "two"])\nanswer["content"] = str([bool(a) for a in r])\nanswer["ready"] = True'
    config = RLMConfig(max_turns=2, max_tool_turns=2, repl=ReplConfig(preload=()), **options)
    async with RLMEnv(Looking(), config) as env:
        return await env.rollout(TASK, script(fenced(code)), llm)


async def test_root_and_sub_llm(served):
    server, parses = served
    config = {"prompt": "tiny", "max_turns": 3, "sub": Sampling(temperature=0, max_tokens=8)}
    options = {"vocabulary": "easy", "lengths": [256], "root": Sampling(max_tokens=256), **config}
    async with chat(server) as llm, load_environment("oolong-rlm", **options) as env:
        rollouts = [await env.rollout(task, llm) for task in env.tasks("eval").take(6)]
        assert llm.supports_tools == parses
        assert bool(llm.adaptations) != parses
    assert [rollout.error for rollout in rollouts] == [None] * 6
    assert sum(rollout.metrics["cells"] for rollout in rollouts) >= 3
    assert sum(rollout.metrics["sub_calls_failed"] for rollout in rollouts) == 0


async def test_tools_of_sub_llms(served):
    server, parses = served
    async with chat(server) as llm:
        rollout = await asked(llm, sub=Sampling(max_tokens=40))
        assert llm.supports_tools == parses
        assert [sentence.partition(" ")[0] for sentence in llm.adaptations] == ([] if parses else ["tools"])
    assert rollout.error is None
    assert len(rollout.sub_calls) == 2
    assert [call.error for call in rollout.sub_calls] == [None, None]
    first = rollout.sub_calls[0].messages[0]
    assert (first["role"], "```tool" in first["content"]) == (("user", False) if parses else ("system", True))


async def test_logprobs_before_temperature_are_refused(vllm_with_parser: VLLMServer, tiny_model_path: Path) -> None:
    engine = RemoteEngine(tiny_model_path, vllm_with_parser.base_url, name="theirs")
    with pytest.raises(ConfigError, match=r"engines\.base_url.*raw_logprobs.*--logprobs-mode processed_logprobs"):
        await engine.__aenter__()


async def test_the_shipped_policy_uses_tools_where_its_calls_are_parsed_by_the_engine(vllm_with_parser: VLLMServer):
    async with chat(vllm_with_parser) as llm, web() as env:
        tasks = env.tasks("eval").take(24)
        rollouts = await played(env, tasks, llm, scripted_root=True)
        opened = [env.score(t, r).metrics["evidence_recall"] for t, r in zip(tasks, rollouts, strict=True)]
    assert [rollout.error for rollout in rollouts] == [None] * 24
    assert sum(rollout.metrics["tool_calls"] for rollout in rollouts) >= 24
    assert sum(opened) / 24 >= 0.3


async def test_killed_engine_is_unavailable_and_leaves_no_orphan(vllm_with_parser: VLLMServer) -> None:
    """kill -9 of the server in the middle of a batch. The last test of this engine."""
    server = vllm_with_parser
    policy = server.policy(renderer="default", retries=1)
    pids = group_of(server)
    assert len(pids) >= 2
    endless = Sampling(max_tokens=400, temperature=1.0, extra={"ignore_eos": True, "stop_token_ids": []})
    requests = [Request([{"role": "user", "content": f"line {i}"}], sampling=endless) for i in range(256)]
    batch = asyncio.ensure_future(policy.complete_many(requests))
    await asyncio.sleep(1.0)
    assert not batch.done()
    os.kill(pids[0], signal.SIGKILL)
    results = await asyncio.wait_for(batch, 60)
    assert all(isinstance(result, EngineUnavailable) for result in results)
    with pytest.raises(EngineUnavailable, match=str(server.log_path)):
        await policy.complete([{"role": "user", "content": "still there?"}])
    assert await asyncio.to_thread(wait_for, lambda: not server.alive, 30.0)
    assert server.exit_code == 137
    await policy.aclose()
    assert await asyncio.to_thread(wait_for, lambda: not any(map(exists, pids)), 30.0)
