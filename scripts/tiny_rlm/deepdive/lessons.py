"""Lessons of deepdive-rlm in its tiny profile: the root LLM asks for the whole walk in one request, or for part of it.

The sub-LLM walks through the real local web with the tools (`researcher.py`). Worlds of the split `eval` are others,
with other pages, links and numbers, but their names are made of the same syllables and words, and their clues of the
same thirty objects: what is learned is to copy them. The address of each conversation's web is made up anew, since that
of `eval` is another one than that of `train`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rlm_env.llm.base import LLM
from rlm_env.messages import Message
from rlm_env.task import Task
from tiny_rlm.deepdive.quest import BEGIN, Quest, read_question
from tiny_rlm.deepdive.researcher import Researcher, guess
from tiny_rlm.lessons import READY, Lessons, Plan, Reply, say

_HOST = re.compile(r"(?<=http://)train-\d+(?=\.)")
HAND_IN = ['answer["content"] = "Answer: " + a[0]', READY]


class DeepDiveLessons(Lessons):
    """`weak`: share of the requests that the scripted sub-LLM answers in a weak way."""

    environment = "deepdive-rlm"
    options: ClassVar[Mapping[str, Any]] = {"profile": "tiny", "tasks_per_world": 8}
    strategies: ClassVar[Mapping[str, float]] = {
        "sound": 0.20,
        "sound_with_check": 0.08,
        "sound_by_hand": 0.08,
        "sound_vote": 0.04,
        "sound_whole": 0.07,
        "sound_after_error": 0.05,
        "no_link": 0.09,
        "first_thing": 0.07,
        "no_clue": 0.06,
        "ask_vaguely": 0.06,
        "one_string": 0.04,
        "no_answer": 0.07,
        "guess": 0.06,
        "prose_only": 0.03,
    }
    batching = frozenset(strategies) - {"guess", "prose_only"}

    def __init__(self, weak: float = 0.03) -> None:
        self.weak = weak

    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        quest = read_question(task.question)
        replies = STRATEGIES[strategy](quest, draw)
        replies[0] = f"Task: {quest.fields}.\n{replies[0]}"
        return Plan(strategy, replies, fallback=say("That failed. I guess.", *_guessed(quest, draw)))

    def sub(self, tasks: Sequence[Task]) -> LLM:
        return Researcher(self.weak)

    def requests(self, tasks: Sequence[Task], draw: random.Random) -> list[Task]:
        """The teachers' requests, most of them whole ones."""
        return [replace(task, question=_request(read_question(task.question), draw)) for task in tasks]

    def varied(self, messages: list[Message], draw: random.Random) -> list[Message]:
        """The conversation in a web of another name."""
        name = "".join(
            draw.choice(letters) for letters in ("bcdfglmprst", "aeiou", "dklmnrst", "eioy")[: 2 + draw.randrange(3)]
        )
        return json.loads(_HOST.sub(f"{name}-{draw.randrange(100)}", json.dumps(messages, ensure_ascii=False)))


def _request(quest: Quest, draw: random.Random) -> str:
    parts = {
        quest.fields: 0.6,
        f"{quest.clue}; {quest.asked}": 0.12,
        f"{quest.clue}; called": 0.10,
        f"{quest.noun}; {quest.link}; {quest.asked}": 0.08,
    }
    prompts = {BEGIN + fields: share for fields, share in parts.items()} | {whole(quest): 0.06, quest.ask: 0.04}
    return draw.choices(list(prompts), list(prompts.values()))[0]


def whole(quest: Quest) -> str:
    """The question again, without the form of the answer."""
    article = "an" if quest.clue[0] in "aeio" else "a"
    link = quest.link if quest.link[0] == "A" else f"That {quest.noun} {quest.link}"
    return f"I am thinking of {article} {quest.clue}. {link}. {quest.ask}"


def ask(*fields: str, times: str = "") -> str:
    return f'a = llm_batch(["{BEGIN}{"; ".join(fields)}"]{times})'


# --- sound --------------------------------------------------------------------------------------------------------


def sound(quest: Quest, draw: random.Random) -> list[Reply]:
    return [say("I ask for all of it.", ask(quest.fields), *HAND_IN)]


def sound_with_check(quest: Quest, draw: random.Random) -> list[Reply]:
    return [say("I ask for all of it and check.", ask(quest.fields), "print(a[0])"), say("It looks right.", *HAND_IN)]


def sound_by_hand(quest: Quest, draw: random.Random) -> list[Reply]:
    """Prints the answer and copies it from the observation."""

    def copy(observation: str) -> str:
        text = observation.removeprefix("Output:\n").split("\n")[0]
        return say("I give that answer.", f'answer["content"] = "Answer: {text}"', READY)

    return [say("I ask for all of it and print.", ask(quest.fields), "print(a[0])"), copy]


def sound_vote(quest: Quest, draw: random.Random) -> list[Reply]:
    """Asks three times and takes the answer that comes most often."""
    vote = 'answer["content"] = "Answer: " + max(a, key=a.count)'
    return [say("I ask three times.", ask(quest.fields, times=" * 3"), vote, READY)]


def sound_whole(quest: Quest, draw: random.Random) -> list[Reply]:
    """Passes on the question, without the form of the answer."""
    return [say("I pass the question on.", f'a = llm_batch(["{whole(quest)}"])', *HAND_IN)]


def sound_after_error(quest: Quest, draw: random.Random) -> list[Reply]:
    slip = draw.choice(
        [
            [ask(quest.fields), 'answer["content"] = "Answer: " + a'],
            [ask(quest.fields), "print(a[1])"],
            [f'a = llm_batch("{BEGIN}{quest.fields}")'],
            ["print(a[0])"],
        ]
    )
    return [say("I try to ask for it.", *slip), say("That failed. I do it again.", ask(quest.fields), *HAND_IN)]


# --- weak ---------------------------------------------------------------------------------------------------------


def no_link(quest: Quest, draw: random.Random) -> list[Reply]:
    """Asks for the value as if the thing that is described had it."""
    return [say("I ask without the link.", ask(quest.clue, quest.asked), *HAND_IN)]


def first_thing(quest: Quest, draw: random.Random) -> list[Reply]:
    """Finds what is described, and gives its name as the answer."""
    return [say("I ask for the first thing.", ask(quest.clue, "called"), *HAND_IN)]


def no_clue(quest: Quest, draw: random.Random) -> list[Reply]:
    """Leaves out what the thing is described by."""
    return [say("I ask without the clue.", ask(quest.noun, quest.link, quest.asked), *HAND_IN)]


def ask_vaguely(quest: Quest, draw: random.Random) -> list[Reply]:
    """Passes on the last sentence alone, which nobody can answer."""
    return [say("I ask the last part.", f'a = llm_batch(["{quest.ask}"])', *HAND_IN)]


def one_string(quest: Quest, draw: random.Random) -> list[Reply]:
    """Calls `llm_batch` with a string, which raises, and gives up."""
    code = f'a = llm_batch("{BEGIN}{quest.fields}")'
    return [say("I ask in one string.", code, *HAND_IN), say("That failed. I guess.", *_guessed(quest, draw))]


def no_answer(quest: Quest, draw: random.Random) -> list[Reply]:
    """Asks, prints the answer, and forgets to hand it in."""
    return [say("I print the answer.", ask(quest.fields), "print(a[0])", READY)]


def guess_at_once(quest: Quest, draw: random.Random) -> list[Reply]:
    return [say("I guess.", *_guessed(quest, draw))]


def prose_only(quest: Quest, draw: random.Random) -> list[Reply]:
    """A reply without code; nothing runs, and the next one guesses."""
    return ["I think about the question.", *guess_at_once(quest, draw)]


def _guessed(quest: Quest, draw: random.Random) -> list[str]:
    return [f'answer["content"] = "Answer: {guess(quest.asked, draw)}"', READY]


STRATEGIES: dict[str, Callable[[Quest, random.Random], list[Reply]]] = {
    teacher.__name__: teacher
    for teacher in (
        *(sound, sound_with_check, sound_by_hand, sound_vote, sound_whole, sound_after_error),
        *(no_link, first_thing, no_clue, ask_vaguely, one_string, no_answer, prose_only),
    )
} | {"guess": guess_at_once}
