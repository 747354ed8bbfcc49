"""The lessons of deepdive-rlm, played in the real REPL and the real local web."""

from __future__ import annotations

import json
import random
from statistics import fmean

import pytest

import rlm_env
from deepdive_rlm import DeepDive
from rlm_env.llm import LLMError
from rlm_env.rollout import Rollout
from rlm_env.task import Task
from rlm_env.tools.box import ToolBox, read_calls
from tests.tiny_rlm.playing import check_strategies
from tiny_rlm.deepdive.lessons import STRATEGIES, DeepDiveLessons
from tiny_rlm.deepdive.quest import BEGIN, Quest, read_question, read_request
from tiny_rlm.deepdive.researcher import Researcher
from tiny_rlm.deepdive.walk import UNKNOWN
from tiny_rlm.profile import make_environment
from tiny_rlm.sessions import opening, record_sessions, record_with_tools

LESSONS = DeepDiveLessons()
EXACT = DeepDiveLessons(weak=0.0)


@pytest.fixture
async def web():
    environment = DeepDive(**LESSONS.options)
    yield environment
    await environment.aclose()


async def research(environment: DeepDive, task: Task, prompt: str, llm: Researcher) -> list[dict]:
    """The conversation of a sub-LLM with that prompt, its answer last."""
    box = ToolBox(environment.tools(task))
    messages = [{"role": "user", "content": prompt}]
    while True:
        completion = await llm.complete(messages, box.schemas)
        messages.append(completion.message())
        if not completion.tool_calls:
            return messages
        results = await box.run(read_calls(completion, native=True))
        assert not any(result.error for result in results)
        messages += [{"role": "tool", "content": result.observation} for result in results]


@pytest.mark.slow
async def test_every_strategy_ends_and_only_the_sound_ones_are_always_right():
    async with make_environment(EXACT, 0) as env:
        scores = await check_strategies(env, EXACT)
    assert all(fmean(scores[name]) <= 0.5 for name in scores if not name.startswith("sound"))


async def test_the_answer_of_the_root_is_what_its_sub_llm_found():
    async with make_environment(EXACT, 0, repl={"preload": ()}) as env:
        [session] = await record_sessions(env, EXACT, env.tasks("train").take(1), 0, strategy="sound_by_hand")
    [sub] = session.subs
    found = sub.messages[-1]["content"]
    assert session.score == 1.0
    assert f'answer["content"] = "Answer: {found}"' in session.root.messages[-1]["content"]
    assert [m["role"] for m in sub.messages] == [
        "user",
        *["assistant", "tool"] * (len(sub.messages) // 2 - 1),
        "assistant",
    ]
    assert sub.tools is not None
    assert "train-" not in json.dumps(sub.messages)


async def test_nearly_every_request_is_answered_from_the_web_and_shortly(web):
    llm, scores = Researcher(weak=0.0), []
    for task in web.tasks("train").take(24):
        messages = await research(web, task, BEGIN + read_question(task.question).fields, llm)
        scores.append(web.score(task, Rollout.from_answer(task, messages[-1]["content"])).value)
        assert len(messages) <= 2 + 2 * 6
        shown = "\n".join(m["content"] for m in messages if m["role"] == "tool")
        assert all(m["content"].strip() in shown for m in messages[1:] if m.get("tool_calls"))
        assert len(json.dumps(messages)) < 6000
    assert fmean(scores) >= 0.9


async def test_weak_answers_come_from_the_first_page_or_from_nowhere(web):
    llm, calls, scores = Researcher(weak=1.0), [], []
    for task in web.tasks("train").take(24):
        messages = await research(web, task, BEGIN + read_question(task.question).fields, llm)
        calls.append(len(messages) // 2 - 1)
        scores.append(web.score(task, Rollout.from_answer(task, messages[-1]["content"])).value)
    assert set(calls) == {0, 1, 2}
    assert fmean(scores) < 0.1


async def test_part_of_a_request_is_answered_as_far_as_it_goes(web):
    task = next(t for t in web.tasks("train") if "city" in read_question(t.question).link and t.gold.isdigit())
    quest, llm = read_question(task.question), Researcher(weak=0.0)

    async def answer(prompt: str) -> str:
        return (await research(web, task, prompt, llm))[-1]["content"]

    assert await answer(task.question) == f"Answer: {task.gold}"
    assert await answer(task.question.partition(" Give")[0]) == task.gold
    assert await answer(f"{BEGIN}{quest.clue}; called") not in (task.gold, UNKNOWN)
    assert await answer(f"{BEGIN}{quest.clue}; eats a city; founded") == UNKNOWN
    assert await answer(f"{BEGIN}nobody; {quest.link}; {quest.asked}") == UNKNOWN
    assert await answer(quest.ask) == UNKNOWN
    assert (await llm.complete([{"role": "user", "content": task.question}])).text == UNKNOWN
    with pytest.raises(LLMError, match="no teacher"):
        await answer("Who is it?")


def test_every_question_is_understood_and_its_request_read_again():
    links = set()
    for task in rlm_env.load_environment("deepdive-rlm", **LESSONS.options).tasks("train").take(250):
        quest = read_question(task.question)
        again = read_request(BEGIN + quest.fields)
        assert again == Quest(quest.clue, quest.link, quest.asked)
        assert quest.clue in task.question
        assert quest.link in task.question
        assert quest.asked in task.question
        links.add(quest.link)
    assert len(links) > 20


def test_the_web_of_a_conversation_gets_another_name_everywhere():
    call = {"function": {"name": "scan_page", "arguments": json.dumps({"url": "http://train-7.deepdive.example/a"})}}
    messages = [
        {"role": "tool", "content": '1. A "b"\nhttp://train-7.deepdive.example/a'},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    seen = set()
    for seed in range(200):
        result, reply = LESSONS.varied(messages, random.Random(seed))
        url = json.loads(reply["tool_calls"][0]["function"]["arguments"])["url"]
        assert result["content"] == f'1. A "b"\n{url}'
        seen.add(url)
    assert len(seen) > 150
    assert not any("train" in url or "eval" in url for url in seen)


async def test_the_standard_scaffold_is_learned_with_tools_and_openings_name_them():
    env = make_environment(EXACT, seed=0)
    async with env:
        tasks = env.tasks("train").take(2)
        conversations = await record_with_tools(env, EXACT, tasks, seed=0)
        root = opening(env, EXACT, tasks[0], "a")
    for task, conversation in zip(tasks, conversations, strict=True):
        assert conversation.messages[0] == {"role": "user", "content": task.question}
        assert conversation.messages[-1]["content"] == f"Answer: {task.gold}"
        assert [tool["function"]["name"] for tool in conversation.tools] == ["search_web", "scan_page", "open_lines"]
        assert "train-" not in json.dumps(conversation.messages)
    assert "search_web: Searches the web." in root.messages[0]["content"]


async def test_requests_are_recorded_without_a_repl_and_in_all_their_forms():
    async with make_environment(EXACT, seed=0) as env:
        requests = EXACT.requests(env.tasks("train").take(24), random.Random(0))
        conversations = await record_with_tools(env, EXACT, requests, seed=0)
    assert [each.messages[0]["content"] for each in conversations] == [task.question for task in requests]
    assert fmean(task.question.startswith(BEGIN) for task in requests) >= 0.7
    right = [each.messages[-1]["content"] == task.gold for each, task in zip(conversations, requests, strict=True)]
    assert 0.5 <= fmean(right) <= 0.9


def test_without_sub_llms_only_guesses_are_left():
    assert LESSONS.strategies.keys() == STRATEGIES.keys()
    assert STRATEGIES.keys() - LESSONS.batching == {"guess", "prose_only"}


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        LESSONS.plan(Task("Who is it?", "", "x"), "sound", random.Random(0))
