"""Lessons of verbatim-copy-rlm: a text that stands in the question alone, so that the program has to repeat it.

Sound are one literal, pieces that are joined, and sub-LLMs that copy pieces. Weak ones copy rightly too, for the model
is to learn nothing else, and then hand in a part of the text, or change it; or they look for it where it is not. Words
come from the environment's eighteen, so both splits share them, in other orders; groups of digits are drawn, and always
copied.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from rlm_env.llm.base import LLM
from rlm_env.messages import Message
from rlm_env.task import Task
from tiny_rlm.lessons import READY, Lessons, Plan, Reply, say
from tiny_rlm.scripted import ScriptedSub, conversation

_ASKED = re.compile(r"Copy the text exactly\. [^\n]*\n\n<text>([^\n]*)</text>")
COPY = "Copy: "
GUESSES = ("the cat sees the dog", "123 456 789", "a red hat", "the text")


class VerbatimCopyLessons(Lessons):
    environment = "verbatim-copy-rlm"
    options: ClassVar[Mapping[str, Any]] = {"profile": "tiny", "lengths": [8, 16, 24, 24, 32, 48, 64]}
    strategies: ClassVar[Mapping[str, float]] = {
        "sound": 0.20,
        "sound_tags": 0.12,
        "sound_pieces": 0.07,
        "sound_print": 0.04,
        "sound_after_error": 0.03,
        "sound_sub": 0.04,
        "sound_sub_pieces": 0.03,
        "first_half": 0.09,
        "first_word": 0.08,
        "last_word_lost": 0.05,
        "one_tag": 0.06,
        "tidied": 0.05,
        "from_context": 0.06,
        "no_answer": 0.04,
        "guess": 0.03,
        "prose_only": 0.01,
    }
    batching = frozenset({"sound_sub", "sound_sub_pieces"})

    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        replies = STRATEGIES[strategy](asked(task), draw)
        replies[0] = f"Task: copy the text.\n{replies[0]}"
        return Plan(strategy, replies, fallback=say("That failed. I guess.", *guessed(draw)))

    def sub(self, tasks: Sequence[Task]) -> LLM:
        return ScriptedSub(repeat)

    def readings(self, tasks: Sequence[Task], draw: random.Random) -> list[list[Message]]:
        """Up to three calls per task, to copy its text and two pieces of it."""
        texts = [text for task in tasks for text in (asked(task), *draw.sample(cut(asked(task)) * 2, 2))]
        return [conversation(COPY + text, text) for text in dict.fromkeys(texts) if text.strip()]


def asked(task: Task) -> str:
    """The text in the question. Raises ValueError for a question of another profile."""
    if not (found := _ASKED.fullmatch(task.question)):
        raise ValueError(f"no teacher understands this question: {task.question}")
    return found[1]


def repeat(prompt: str) -> str | None:
    return prompt.removeprefix(COPY) if prompt.startswith(COPY) else None


def cut(text: str) -> list[str]:
    """Pieces of three words or groups each, together the whole text."""
    return re.findall(r"(?:\S* ?){1,3}", text)[:-1]  # the last match is empty


def hand_in(value: str) -> list[str]:
    return [f'answer["content"] = {value}', READY]


# --- sound --------------------------------------------------------------------------------------------------------


def sound(text: str, draw: random.Random) -> list[Reply]:
    return [say("I write all of it.", f'text = "{text}"', *hand_in("text"))]


def sound_tags(text: str, draw: random.Random) -> list[Reply]:
    return [say("I write all of it in tags.", *hand_in(f'"<answer>{text}</answer>"'))]


def sound_pieces(text: str, draw: random.Random) -> list[Reply]:
    pieces = [f'    "{piece}",' for piece in cut(text)]
    return [say("I write it in pieces.", "parts = [", *pieces, "]", *hand_in('"".join(parts)'))]


def sound_print(text: str, draw: random.Random) -> list[Reply]:
    """Prints the copy, and hands it in one turn later."""
    return [
        say("I write all of it and look.", f'text = "{text}"', "print(text, len(text))"),
        say("The copy looks right.", *hand_in("text")),
    ]


def sound_after_error(text: str, draw: random.Random) -> list[Reply]:
    """A literal that is not closed, one without quotes, or a name that does not exist; then the whole program."""
    slip = draw.choice([[f'text = "{text}'], [f"text = {text}", "print(text[0])"], ["text = question", "print(text)"]])
    again = say("That failed. I do it again.", f'text = "{text}"', *hand_in("text"))
    return [say("I try to write it.", *slip), again]


def sound_sub(text: str, draw: random.Random) -> list[Reply]:
    return [say("I ask for a copy.", f'r = llm_batch(["{COPY}{text}"])', *hand_in("r[0]"))]


def sound_sub_pieces(text: str, draw: random.Random) -> list[Reply]:
    """Each piece is copied by a sub-LLM."""
    pieces = [f'    "{piece}",' for piece in cut(text)]
    code = ["parts = [", *pieces, "]", f'r = llm_batch(["{COPY}" + x for x in parts])', *hand_in('"".join(r)')]
    return [say("I ask for copies of pieces.", *code)]


# --- weak ---------------------------------------------------------------------------------------------------------


def first_half(text: str, draw: random.Random) -> list[Reply]:
    return [say("Half of it will do.", f'text = "{text}"', *hand_in("text[:len(text) // 2]"))]


def first_word(text: str, draw: random.Random) -> list[Reply]:
    return [say("I give the first word.", f'text = "{text}"', *hand_in("text.split()[0]"))]


def last_word_lost(text: str, draw: random.Random) -> list[Reply]:
    """A text may stop in the middle of a word, which then goes."""
    return [say("I leave out the end.", f'text = "{text}"', *hand_in('" ".join(text.split()[:-1])'))]


def one_tag(text: str, draw: random.Random) -> list[Reply]:
    return [say("I write a tag and all of it.", f'text = "<answer>{text}"', *hand_in("text"))]


def tidied(text: str, draw: random.Random) -> list[Reply]:
    """Strips the blank at the end, and makes it a sentence."""
    return [say("I write it well.", f'text = "{text}"', *hand_in('text.strip().capitalize() + "."'))]


def from_context(text: str, draw: random.Random) -> list[Reply]:
    """Takes the text for the context, which is empty."""
    return [say("I give the context.", *hand_in('f"<answer>{context}</answer>"'))]


def no_answer(text: str, draw: random.Random) -> list[Reply]:
    return [say("I print it.", f'text = "{text}"', "print(text)", READY)]


def guess(text: str, draw: random.Random) -> list[Reply]:
    return [say("I guess.", *guessed(draw))]


def prose_only(text: str, draw: random.Random) -> list[Reply]:
    """A reply without code; nothing runs, and the next one guesses."""
    return ["I think about the text.", say("I guess.", *guessed(draw))]


def guessed(draw: random.Random) -> list[str]:
    return [f'text = "{draw.choice(GUESSES)}"', *hand_in("text")]


STRATEGIES: dict[str, Callable[[str, random.Random], list[Reply]]] = {
    teacher.__name__: teacher
    for teacher in (
        *(sound, sound_tags, sound_pieces, sound_print, sound_after_error, sound_sub, sound_sub_pieces),
        *(first_half, first_word, last_word_lost, one_tag, tidied, from_context, no_answer, guess, prose_only),
    )
}
