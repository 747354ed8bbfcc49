"""The lessons of `codeqa-rlm` in its profile `tiny`: strategies, their shares, and the reading of single blocks.

The vocabulary's 32 words are the same in both splits, and so are the names that can be made of them; which of them a
repository has, in which files, calling what, and with which defaults, is drawn anew in every task.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from rlm_env.llm.base import LLM
from rlm_env.messages import Message
from rlm_env.task import Task
from tiny_rlm.codeqa import sound, weak
from tiny_rlm.codeqa.questions import CodeQuestion, read_code_question
from tiny_rlm.codeqa.reading import block_prompts, read_code
from tiny_rlm.lessons import Lessons, Plan, Reply, say
from tiny_rlm.scripted import ScriptedSub, conversation

READINGS = {"Calls": 6, "Has": 2, "Default": 1}
"""Conversations per task beside those of the sessions, by the kind of prompt."""
CODE_STRATEGIES: Mapping[str, tuple[Callable[[CodeQuestion, random.Random], list[Reply]], float]] = {
    "sound": (sound.direct, 0.15),
    "sound_look_first": (sound.look_first, 0.04),
    "sound_check": (sound.check, 0.06),
    "sound_search": (sound.by_search, 0.22),
    "sound_by_hand": (sound.by_hand, 0.07),
    "sound_after_error": (sound.after_error, 0.04),
    "sound_after_no_reply_fits": (sound.after_no_reply_fits, 0.02),
    "guess": (weak.guess, 0.06),
    "look_and_guess": (weak.look_and_guess, 0.03),
    "first_file": (weak.first_file, 0.05),
    "most_named": (weak.most_named, 0.03),
    "first_defined": (weak.first_defined, 0.03),
    "name_in_block": (weak.name_in_block, 0.06),
    "no_answer": (weak.no_answer, 0.05),
    "wrong_form": (weak.wrong_form, 0.03),
    "wrong_form_search": (weak.wrong_form_search, 0.02),
    "ask_at_once": (weak.ask_at_once, 0.02),
    "prose_only": (weak.prose_only, 0.02),
}
"""Name -> teacher and its share of the sessions."""


class CodeQALessons(Lessons):
    """Which function calls, which class overrides, which default: by reading blocks of code or by searching them."""

    environment = "codeqa-rlm"
    options: ClassVar[Mapping[str, Any]] = {"profile": "tiny", "lengths": [200, 240, 320, 480, 1200, 2400]}
    strategies: ClassVar[Mapping[str, float]] = {name: share for name, (_, share) in CODE_STRATEGIES.items()}
    batching = frozenset(
        {
            *("sound", "sound_look_first", "sound_check", "sound_after_error", "sound_after_no_reply_fits"),
            *("no_answer", "wrong_form", "ask_at_once"),
        }
    )

    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        question = read_code_question(task.question)
        replies = CODE_STRATEGIES[strategy][0](question, draw)
        replies[0] = f"Task: {question.asked}.\n{replies[0]}"
        return Plan(strategy, replies, fallback=say("That failed. I guess.", *weak.guessed(draw)))

    def sub(self, tasks: Sequence[Task]) -> LLM:
        letters = {read_code_question(task.question).chosen_from: task.gold for task in tasks}
        return ScriptedSub(lambda prompt: read_code(prompt, letters))

    def readings(self, tasks: Sequence[Task], draw: random.Random) -> list[list[Message]]:
        found = []
        for task in tasks:
            prompts = list(block_prompts(task.context))
            for kind, n in READINGS.items():
                fitting = [prompt for prompt in prompts if prompt.startswith(f"{kind} ")]
                for prompt in draw.sample(fitting, min(n, len(fitting))):
                    found.append(conversation(prompt, read_code(prompt, {}) or ""))
        return found
