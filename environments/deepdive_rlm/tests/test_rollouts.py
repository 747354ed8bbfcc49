"""Solving with the tools: the walk scores 1.0 and nothing less does; in a rollout, only sub-LLMs reach the web."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from walker import walk

import rlm_env
from deepdive_rlm import DeepDive, baselines, trail
from deepdive_rlm.schema import OBJECTS
from deepdive_rlm.server import Site, WebServer
from rlm_env.messages import Completion
from rlm_env.protocol import user_message
from rlm_env.rollout import Rollout, SubCall, SubTurn, ToolResult, Turn
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from rlm_env.tools.box import ToolBox, ToolCall, result_messages
from rlm_rewards import deepdive
from tests.stubs import StubLLM, fenced, script

WORDS = {clue: word for word, clue in OBJECTS}


async def solve(env: DeepDive, task: Task) -> str:
    """The answer of the solver that follows the walk."""
    box = ToolBox(env.tools(task))
    steps = walk(task.question, WORDS)
    try:
        calls = next(steps)
        while True:
            results = await box.run([ToolCall(name, arguments) for name, arguments in calls])
            calls = steps.send([result.observation for result in results])
    except StopIteration as done:
        return f"Answer: {done.value}"


def scored(env: DeepDive, task: Task, answer: str) -> float:
    return env.score(task, Rollout.from_answer(task, answer)).value


@pytest.fixture
async def tiny():
    env = DeepDive(profile="tiny", hops=[1, 2])
    yield env
    await env.aclose()


async def test_following_the_walk_scores_one():
    env = DeepDive(hops=[1, 2, 3, 4])
    for task in env.tasks("eval").take(6):
        assert scored(env, task, await solve(env, task)) == 1.0, task.question
    await env.aclose()


async def test_following_the_walk_scores_one_in_the_tiny_web_and_never_without_a_page(tiny):
    for task in tiny.tasks("eval").take(8):
        assert scored(tiny, task, await solve(tiny, task)) == 1.0, task.question
        for url in task.info["evidence"]:
            cut = DeepDive(profile="tiny", hops=[1, 2])
            cut.source.server = WebServer(
                lambda host, url=url: Site(tiny.source.world(host.partition(".")[0]), without=[url])
            )
            assert scored(cut, task, await solve(cut, task)) == 0.0, f"{task.question} without {url}"
            await cut.aclose()


async def test_search_results_alone_are_not_enough():
    env = DeepDive()
    tasks = env.tasks("eval").take(30)
    answers = [await baselines.snippets(task, env.tools(task)) for task in tasks]
    await env.aclose()
    assert all(answers)
    assert sum(map(scored, [env] * 30, tasks, answers)) / 30 <= 0.05


def walker(messages) -> Completion | str:
    """A sub-LLM that follows the walk: its calls so far are played again on their results."""
    steps = walk(messages[0]["content"], WORDS)
    given = [m["content"] for m in messages if m["role"] == "tool"]
    try:
        calls = next(steps)
        while given:
            results, given = given[: len(calls)], given[len(calls) :]
            calls = steps.send(results)
    except StopIteration as done:
        return f"Answer: {done.value}"
    made = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for i, (name, arguments) in enumerate(calls)
    ]
    return Completion("", tool_calls=made, finish_reason="tool_calls")


def rlm(env: DeepDive, **config) -> RLMEnv:
    return RLMEnv(env, RLMConfig(repl=rlm_env.ReplConfig(preload=()), max_tool_turns=100, **config))


async def test_a_rollout_in_which_sub_llms_follow_the_walk(tiny):
    task = tiny.tasks("eval").take(2)[1]
    code = f'answer["content"] = llm_batch([{task.question!r}])[0]\nanswer["ready"] = True'
    async with rlm(tiny) as scaffold:
        rollout = await scaffold.rollout(task, script(fenced(code)), StubLLM(walker, supports_tools=True))
        score = scaffold.score(task, rollout)
    assert score.value == score.metrics["rules"] == 1.0
    assert score.metrics["evidence_recall"] == score.metrics["hop_coverage"] == 1.0
    assert score.metrics["pages_opened"] >= len(task.info["evidence"])
    assert 0 < score.metrics["redundancy"] <= 1
    assert rollout.metrics["tool_calls_search_web"] == score.metrics["searches"] > 0
    assert rollout.metrics["tool_calls_failed"] == 0
    assert "search_web: Searches the web." in rollout.messages[0]["content"]
    assert Rollout.from_json(rollout.to_json()).sub_calls == rollout.sub_calls


async def test_the_root_and_its_code_do_not_reach_the_web(tiny):
    task = tiny.tasks("eval").take(1)[0]
    url = f"http://127.0.0.1:{tiny.source.server.start()}/wiki/x"
    code = f"""import socket, urllib.error, urllib.request
try:
    urllib.request.urlopen({url!r}, timeout=3)
except urllib.error.HTTPError:
    print("REACHED")
except Exception as error:
    print("blocked:", type(error).__name__)
print([name for name in dir() if name in ("search_web", "scan_page", "open_lines")])"""
    async with rlm(tiny, max_turns=2) as scaffold:
        native = StubLLM(
            lambda m: Completion("", tool_calls=[{"id": "c", "function": {"name": "search_web", "arguments": "{}"}}]),
            supports_tools=True,
        )
        assert "there is no tool 'search_web'" in (await scaffold.rollout(task, native)).turns[0].observation
        rollout = await scaffold.rollout(task, script(fenced(code)))
    assert "blocked" in rollout.turns[0].observation
    assert "REACHED" not in rollout.turns[0].observation
    assert "[]" in rollout.turns[0].observation
    seen = json.dumps(rollout.messages)
    assert task.gold not in seen
    assert "deepdive.example" not in seen


@pytest.mark.parametrize("users", ["root", "both"])
async def test_the_root_may_have_the_tools_too(tiny, users):
    task = tiny.tasks("eval").take(1)[0]
    url = task.info["evidence"][0]
    look = f'```tool\n{{"name": "open_lines", "arguments": {{"url": "{url}"}}}}\n```'
    done = fenced(f'answer["content"] = {tiny.perfect_answer(task)!r}\nanswer["ready"] = True')
    async with rlm(tiny, tools_for=users) as scaffold:
        rollout = await scaffold.rollout(task, script(look, done))
        score = scaffold.score(task, rollout)
    assert score.value == 1.0
    assert score.metrics["pages_opened"] == 1
    assert score.metrics["hop_coverage"] == 1 / len(task.info["evidence"])


def opened(name: str, url: str, error: str | None = None) -> ToolResult:
    return ToolResult(name, json.dumps({"url": url}), error=error)


def test_measures_of_a_trail():
    evidence = ["http://a.example/1", "http://a.example/2", "http://a.example/3"]
    queries = ["old bridges", "old bridges", "rivers"]
    searched = [ToolResult("search_web", json.dumps({"query": query})) for query in queries]
    odd = [ToolResult("search_web", "{"), ToolResult("search_web", "[]"), ToolResult("open_lines", "{}")]
    read = [
        opened("scan_page", "http://a.example/1#top"),
        opened("open_lines", "http://a.example/3/"),
        opened("open_lines", "http://a.example/2", error="WebError: there is no such page"),
    ]
    rollout = Rollout(
        turns=[Turn(tool_results=searched[:1])],
        sub_calls=[
            SubCall(0, 0, 0, [], tool_turns=[SubTurn(tool_results=searched[1:] + odd), SubTurn(tool_results=read)])
        ],
    )
    found = trail.metrics(rollout, evidence)
    assert found["searches"] == 3
    assert found["pages_opened"] == 3
    assert found["evidence_recall"] == pytest.approx(2 / 3)
    assert found["hop_coverage"] == pytest.approx(1 / 3)
    assert found["redundancy"] == deepdive.redundancy(queries)
    assert trail.metrics(Rollout(), evidence)["hop_coverage"] == 0.0
    assert "evidence_recall" not in trail.metrics(Rollout(), None)


async def test_tiny_rlm_can_be_asked_within_its_window(tiny):
    """The root's prompt, and a sub-LLM's with the text protocol and one page, leave room for a reply."""
    pytest.importorskip("renderers")
    pytest.importorskip("transformers")
    from rlm_env.llm.chat_tokens import ChatTokens
    from rlm_env.runs.profile import load_profile

    folder = Path(rlm_env.__file__).parent / "models" / "tiny-rlm"
    profile = load_profile(folder)
    tokens = ChatTokens(folder, profile.pop("renderer"))
    config = RLMConfig(**profile)
    for task in tiny.tasks("eval").take(20):
        box = ToolBox(tiny.tools(task))
        system = RLMEnv(tiny, config).system_prompt(use_tool=False, tools=box)
        root = [{"role": "system", "content": system}, {"role": "user", "content": user_message(task)}]
        (page,) = await box.run([ToolCall("open_lines", {"url": task.info["evidence"][0]})])
        sub = [
            {"role": "system", "content": box.instructions()},
            {"role": "user", "content": task.question},
            {"role": "assistant", "content": '```tool\n{"name": "open_lines", "arguments": {"url": "..."}}\n```'},
            *result_messages([page], native=False),
        ]
        assert len(tokens.prompt(root, None).ids) <= 2048 - config.root.max_tokens
        assert len(tokens.prompt(sub, None).ids) <= 2048 - config.sub.max_tokens
