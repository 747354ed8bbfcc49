"""Recording tiny-rlm's lessons: sessions through the real REPL, sub-LLMs with tools, openings."""

from __future__ import annotations

import random
from typing import ClassVar

import pytest

import rlm_env
from rlm_env.llm.base import LLM
from rlm_env.messages import Completion
from tiny_rlm.lessons import READY, Lessons, Plan, say
from tiny_rlm.oolong.lessons import OolongLessons
from tiny_rlm.profile import SCAFFOLDS, make_environment
from tiny_rlm.sessions import Session, opening, record_sessions, standard_answer


def look_up(word: str) -> str:
    """The meaning of a word."""
    return f"{word} is a fruit"


class Words(rlm_env.Environment):
    """Two tasks, and a tool."""

    name = "words"

    def tasks(self, split):
        for word in ("fig", "plum"):
            yield rlm_env.Task(question=f"What is a {word}?", context={"a.txt": "x" * 8}, gold="a fruit")

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)

    def tools(self, task):
        return [look_up]


class WordsSub(LLM):
    """Looks the last word of the prompt up, then gives what it read."""

    name = "words-sub"
    supports_tools = True

    async def complete(self, messages, tools=None, sampling=None):
        assert tools
        if messages[-1]["role"] == "tool":
            return Completion(messages[-1]["content"].split(" is ")[1])
        word = messages[-1]["content"].split()[-1]
        function = {"name": "look_up", "arguments": f'{{"word": "{word}"}}'}
        return Completion("", tool_calls=[{"id": "1", "type": "function", "function": function}])


class WordsLessons(Lessons):
    environment = "words"
    options: ClassVar[dict] = {}
    strategies: ClassVar[dict] = {"sound": 1.0, "never_ready": 0.0}

    def plan(self, task, strategy, draw):
        word = task.question.rstrip("?").split()[-1]
        code = [f'r = llm_batch(["Find {word}"] * 2)', 'answer["content"] = r[1]']
        return Plan(strategy, [say("I ask.", *code, *([READY] if strategy == "sound" else []))], say("No.", "print(1)"))

    def sub(self, tasks):
        return WordsSub()


@pytest.fixture
async def words():
    async with rlm_env.RLMEnv(Words(), rlm_env.RLMConfig(max_turns=2, prompt="tiny")) as env:
        yield env


async def test_a_session_holds_the_root_and_each_sub_conversation_with_its_tools_once(words):
    played = await record_sessions(words, WordsLessons(), list(words.tasks("train")), 0)
    assert [session.score for session in played] == [1.0, 1.0]
    assert [m["role"] for m in played[0].root.messages] == ["system", "user", "assistant"]
    (sub,) = played[0].subs
    assert [m["role"] for m in sub.messages] == ["user", "assistant", "tool", "assistant"]
    assert sub.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"word": "fig"}'
    assert (sub.messages[2]["content"], sub.messages[3]["content"]) == ("fig is a fruit", "a fruit")
    assert [tool["function"]["name"] for tool in sub.tools] == ["look_up"]
    assert [Session.from_dict(session.to_dict()) for session in played] == played


async def test_a_teacher_that_does_not_end_is_an_error(words):
    with pytest.raises(RuntimeError, match=r"words: strategy never_ready on task train-. ended with max_turns"):
        await record_sessions(words, WordsLessons(), list(words.tasks("train")), 0, strategy="never_ready")


def test_an_opening_tells_of_as_many_lines_or_files_as_asked_for_and_replies_alike(words):
    lessons = OolongLessons()
    env = make_environment(lessons, 0)
    (task,) = env.tasks("train").take(1)
    short, long = opening(env, lessons, task, "seed"), opening(env, lessons, task, "seed", 20_000)
    assert "20,000 lines" in long.messages[1]["content"]
    assert f"{len(task.context):,} characters" in short.messages[1]["content"]
    assert (long.messages[0], long.messages[2]) == (short.messages[0], short.messages[2])
    files = opening(words, WordsLessons(), next(iter(words.tasks("train"))), "seed", 30)
    assert "dict of 30 str" in files.messages[1]["content"]


def test_strategies_are_drawn_by_their_shares():
    lessons = OolongLessons()
    (task,) = make_environment(lessons, 0).tasks("train").take(1)
    drawn = [lessons.draw_plan(task, random.Random(i)).strategy for i in range(2000)]
    for name, share in lessons.strategies.items():
        assert abs(drawn.count(name) / 2000 - share / sum(lessons.strategies.values())) < 0.03


def test_the_standard_scaffold_gets_the_context_and_answers_at_once():
    lessons = OolongLessons()
    env = make_environment(lessons, 0)
    (task,) = env.tasks("train").take(1)
    prompt, reply = standard_answer(env, task).messages
    assert task.context in prompt["content"]
    assert env.score(task, rlm_env.Rollout.from_answer(task, reply["content"])).value == 1.0


async def test_without_sub_llms_no_teacher_calls_them():
    lessons = OolongLessons()
    async with make_environment(lessons, 0, **SCAFFOLDS["rlm-nosub"]) as env:
        played = await record_sessions(env, lessons, env.tasks("train").take(12), 0)
    assert not {session.strategy for session in played} & lessons.batching
    assert "llm_batch" not in str([session.root for session in played])


def test_a_scaffold_with_tips_shows_them():
    lessons = OolongLessons()
    env = make_environment(lessons, 0, **SCAFFOLDS["rlm-tips"])
    (task,) = env.tasks("train").take(1)
    assert "Never estimate" in opening(env, lessons, task, "seed").messages[0]["content"]
