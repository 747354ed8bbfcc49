"""Lessons of needle-rlm: the number that the context gives to a name, found by Python or by a sub-LLM.

Names are pairs of 8 colors and 8 animals, so those of the split `eval` occur in `train` too; numbers have three digits
and are always copied. What tells sound from weak is the selection: by the whole name over the whole context, or by half
of it, over the beginning, or by none.
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

_ASKED = re.compile(r"What is the special magic number for ([a-z]+-[a-z]+)\?")
_PROMPT = re.compile(r"Number for ([a-z]+-[a-z]+): ")
_STATED = re.compile(r"The special magic number for ([a-z]+-[a-z]+) is [0-9]+\.")
NONE = "none"
"""The last word of the sub-LLM's answer about a text that does not have the number."""
HAND_IN = ['answer["content"] = f"Answer: {n}"', READY]
GUESS = "I guess."


class NeedleLessons(Lessons):
    environment = "needle-rlm"
    options: ClassVar[Mapping[str, Any]] = {"profile": "tiny", "lengths": [600, 900, 2400, 6000]}
    strategies: ClassVar[Mapping[str, float]] = {
        "sound": 0.10,
        "sound_pattern": 0.08,
        "sound_find": 0.05,
        "sound_after_look": 0.04,
        "sound_by_hand": 0.04,
        "sound_after_error": 0.03,
        "sound_sub_rows": 0.08,
        "sound_sub_all": 0.04,
        "first_part": 0.04,
        "half_name": 0.07,
        "first_number": 0.08,
        "whole_sentence": 0.08,
        "no_answer": 0.08,
        "all_numbers": 0.07,
        "ask_at_once": 0.03,
        "guess": 0.06,
        "prose_only": 0.03,
    }
    batching = frozenset({"sound_sub_rows", "sound_sub_all", "ask_at_once"})

    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        name = asked(task)
        replies = STRATEGIES[strategy](name, draw)
        replies[0] = f'Task: number for "{name}".\n{replies[0]}'
        return Plan(strategy, replies, fallback=say("That failed. I guess.", *guessed(draw)))

    def sub(self, tasks: Sequence[Task]) -> LLM:
        return ScriptedSub(read)

    def readings(self, tasks: Sequence[Task], draw: random.Random) -> list[list[Message]]:
        """For up to three names of each context a short text that has its number, and one that has only those of
        others."""
        found = []
        for task in tasks:
            assert isinstance(task.context, str)
            sentences = [sentence.strip() for sentence in re.findall(r"[^.\n]+\.", task.context)]
            stated = {name[1]: sentence for sentence in sentences if (name := _STATED.match(sentence))}
            prose = [sentence for sentence in sentences if sentence not in stated.values()]
            for name in [asked(task), *draw.sample(sorted(stated), 2)]:
                near = [sentence for other, sentence in stated.items() if other != name]
                for wanted in ([stated[name]], []):
                    others = draw.sample(near, draw.randint(0 if wanted else 1, min(2, len(near))))
                    text = [*draw.sample(prose, draw.choice([0, 0, 1, 3, 6])), *others, *wanted]
                    draw.shuffle(text)
                    prompt = f"Number for {name}: {' '.join(text)}"
                    found.append(conversation(prompt, str(read(prompt))))
        return found


def asked(task: Task) -> str:
    """The name in the question. Raises ValueError for a question of another profile."""
    if not (found := _ASKED.match(task.question)):
        raise ValueError(f"no teacher understands this question: {task.question}")
    return found[1]


def read(prompt: str) -> str | None:
    """What the sub-LLM is to answer: the end of the sentence with the name, since a small model finds the number better
    when it has repeated the name, or that there is `none`."""
    if not (kind := _PROMPT.match(prompt)):
        return None
    found = re.search(rf"special magic number for {kind[1]} is (\d+)", prompt)
    return f"{kind[1]} is {found[1] if found else NONE}"


# --- sound --------------------------------------------------------------------------------------------------------


def select(mark: str, where: str = "context") -> str:
    return f'rows = [x for x in {where}.split(".") if "{mark}" in x]'


LAST_WORD = "n = rows[0].split()[-1]"


def sound(name: str, draw: random.Random) -> list[Reply]:
    return [say("I select the sentence.", select(name), LAST_WORD, *HAND_IN)]


def sound_pattern(name: str, draw: random.Random) -> list[Reply]:
    search = f'n = re.findall(r"{name} is (\\d+)", context)[0]'
    return [say("I search with a pattern.", "import re", search, *HAND_IN)]


def sound_find(name: str, draw: random.Random) -> list[Reply]:
    code = [f'i = context.find("{name} is")', "n = context[i:].split()[2][:3]"]
    return [say("I find the place.", *code, *HAND_IN)]


def sound_after_look(name: str, draw: random.Random) -> list[Reply]:
    return [look(draw), say("Now I select the sentence.", select(name), LAST_WORD, *HAND_IN)]


def sound_by_hand(name: str, draw: random.Random) -> list[Reply]:
    """Prints the sentence and copies the number from the observation."""

    def copy(observation: str) -> str:
        return say("I give that number.", f'answer["content"] = "Answer: {observation.split()[-1]}"', READY)

    return [say("I select the sentence and print.", select(name), "print(rows[0])"), copy]


def sound_after_error(name: str, draw: random.Random) -> list[Reply]:
    slip = draw.choice(
        [
            [select(name), "n = rows[0].split[-1]"],
            [select(name), "n = int(rows[0])"],
            [f'rows = context.split(".")["{name}"]'],
            [f'n = re.findall(r"{name} is (\\d+)", context)[0]'],
        ]
    )
    again = say("That failed. I do it again.", select(name), LAST_WORD, *HAND_IN)
    return [say("I try to select the sentence.", *slip), again]


def sound_sub_rows(name: str, draw: random.Random) -> list[Reply]:
    """A sub-LLM reads the selected sentence."""
    code = [select(name), f'n = llm_batch(["Number for {name}: " + x for x in rows])[0].split()[-1]']
    return [say("I select the sentence and ask.", *code, *HAND_IN)]


def sound_sub_all(name: str, draw: random.Random) -> list[Reply]:
    """Sub-LLMs read every line, and one of them finds it."""
    code = [
        'rows = context.split("\\n")',
        f'r = llm_batch(["Number for {name}: " + x for x in rows])',
        f'n = [x for x in r if "{NONE}" not in x][0].split()[-1]',
    ]
    return [say("I ask about every line.", *code, *HAND_IN)]


# --- weak ---------------------------------------------------------------------------------------------------------


def look(draw: random.Random) -> str:
    return say("I look first.", f"print(context[{draw.choice([':200', ':300', '-200:'])}])")


def first_part(name: str, draw: random.Random) -> list[Reply]:
    """Searches only the beginning, where a short context has it half of the time."""
    cut = draw.choice([200, 300, 400])
    choose = 'n = rows[0].split()[-1] if rows else "0"'
    return [say("The beginning will do.", select(name, f"context[:{cut}]"), choose, *HAND_IN)]


def half_name(name: str, draw: random.Random) -> list[Reply]:
    """Selects by one word of the name, which other names share."""
    color, animal = name.split("-")
    return [say("One word will do.", select(draw.choice([f"for {color}", f"{animal} is"])), LAST_WORD, *HAND_IN)]


def first_number(name: str, draw: random.Random) -> list[Reply]:
    return [say("I take the first number.", "import re", 'n = re.findall(r"\\d+", context)[0]', *HAND_IN)]


def whole_sentence(name: str, draw: random.Random) -> list[Reply]:
    """Finds the sentence and hands it in as it is."""
    return [say("I give the sentence.", select(name), 'answer["content"] = rows[0]', READY)]


def no_answer(name: str, draw: random.Random) -> list[Reply]:
    """Finds the number, prints it, and forgets to answer."""
    return [say("I print the number.", select(name), LAST_WORD, "print(n)", READY)]


def all_numbers(name: str, draw: random.Random) -> list[Reply]:
    return [say("I give all numbers.", "import re", 'n = re.findall(r"\\d+", context)', *HAND_IN)]


def ask_at_once(name: str, draw: random.Random) -> list[Reply]:
    """Hands the whole context to one sub-LLM, whose window holds only a short one."""
    code = f'n = llm_batch(["Number for {name}: " + context])[0].split()[-1]'
    return [say("I ask about all of it at once.", code, *HAND_IN)]


def guess(name: str, draw: random.Random) -> list[Reply]:
    first = [look(draw)] if draw.random() < 0.4 else []
    return [*first, say(GUESS, *guessed(draw))]


def prose_only(name: str, draw: random.Random) -> list[Reply]:
    """A reply without code; nothing runs, and the next one guesses."""
    return ["I think about the question.", say(GUESS, *guessed(draw))]


def guessed(draw: random.Random) -> list[str]:
    return [f'answer["content"] = "Answer: {draw.randint(100, 999)}"', READY]


STRATEGIES: dict[str, Callable[[str, random.Random], list[Reply]]] = {
    teacher.__name__: teacher
    for teacher in (
        *(sound, sound_pattern, sound_find, sound_after_look, sound_by_hand, sound_after_error),
        *(sound_sub_rows, sound_sub_all),
        *(first_part, half_name, first_number, whole_sentence, no_answer, all_numbers, ask_at_once, guess, prose_only),
    )
}
