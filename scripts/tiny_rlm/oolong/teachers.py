"""The teachers of Oolong: one sound strategy in several forms, and many weak ones.

A first reply begins by restating the task in the words of the code, since a small model copies more reliably from
nearby. The sound strategy asks the sub-LLM about every selected line and counts its labels. The weak ones are shortcuts
that real small models take.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tiny_rlm.lessons import READY, Plan, Reply, say
from tiny_rlm.oolong.questions import Question

WORDS = ("more common than", "less common than", "same frequency as")


def restate(question: Question) -> str:
    """The task in one line, with the strings that a program for it contains."""
    names = ", ".join(f'"{label}"' for label in question.labels)
    return f'Task: {question.quantity} {names} where "{question.mark}".'


def select(question: Question, cut: str = "") -> str:
    return f'rows = [x for x in context.split("\\n") if "{question.mark}" in x]{cut}'


READ = 'labels = llm_batch(["Label: " + x.split("Instance: ")[1] for x in rows])'


def conclude(question: Question, count: str = "labels.count") -> list[str]:
    """Code from `rows` and `labels` to the answer in the benchmark's form."""
    first = question.labels[0]
    if question.quantity == "count":
        return [f'n = {count}("{first}")', 'answer["content"] = f"Answer: {n}"']
    if question.quantity == "user":
        return [
            f'users = [x.split(" || ")[1] for x, y in zip(rows, labels) if y == "{first}"]',
            'answer["content"] = max(users, key=users.count)',
        ]
    if question.quantity == "compare":
        second = question.labels[1]
        return [
            f'a, b = {count}("{first}"), {count}("{second}")',
            f'word = "{WORDS[0]}" if a > b else "{WORDS[1]}" if a < b else "{WORDS[2]}"',
            f'answer["content"] = f"Answer: {first} is {{word}} {second}"',
        ]
    pick = "max" if question.quantity == "most" else "min"
    names = ", ".join(f'"{label}"' for label in question.labels)
    return [f'answer["content"] = "Label: " + {pick}([{names}], key={count})']


def program(question: Question, cut: str = "") -> list[str]:
    return [select(question, cut), READ, *conclude(question), READY]


# --- the sound strategy, in several forms ------------------------------------------------------------------------


def sound(question: Question, draw: random.Random) -> list[Reply]:
    return [say("I read every line.", *program(question))]


def sound_twice(question: Question, draw: random.Random) -> list[Reply]:
    """Asks about every line twice, and uses the second answers."""
    return [say("I read every line and do it again.", select(question), READ, READ, *conclude(question), READY)]


def look_then_sound(question: Question, draw: random.Random) -> list[Reply]:
    return [look(draw), say("Now I read every line.", *program(question))]


def sound_with_check(question: Question, draw: random.Random) -> list[Reply]:
    return [
        say("I read every line and check.", select(question), READ, "print(len(rows), labels[:4])"),
        say("The labels look right.", *conclude(question), READY),
    ]


def sound_by_hand(question: Question, draw: random.Random) -> list[Reply]:
    """Prints the number and copies it from the observation."""
    if question.quantity != "count":
        return sound_with_check(question, draw)
    first = question.labels[0]

    def copy(observation: str) -> str:
        number = observation.removeprefix("Output:").split()[0]
        return say("I give that number.", f'answer["content"] = "Answer: {number}"', READY)

    return [say("I read every line and print.", select(question), READ, f'print(labels.count("{first}"))'), copy]


def sound_after_error(question: Question, draw: random.Random) -> list[Reply]:
    """A first cell that raises, then the whole program without the slip."""
    slip = draw.choice(
        [
            ['rows = context.split("\\n")', READ],
            ["rows = context.split", READ],
            [select(question), "labels = llm_batch(rows[0])"],
            [select(question), READ, "print(Counter(labels))"],
            [READ],
        ]
    )
    return [say("I try to read every line.", *slip), say("That failed. I do it again.", *program(question))]


# --- weak strategies ----------------------------------------------------------------------------------------------


def look(draw: random.Random) -> str:
    return say("I look first.", f"print(context[{draw.choice([':200', ':300', '-200:'])}])")


def first_lines(question: Question, draw: random.Random) -> list[Reply]:
    return [say("A few lines will do.", *program(question, cut=f"[:{draw.randint(1, 4)}]"))]


def raw_labels(question: Question, draw: random.Random) -> list[Reply]:
    """Reads everything and hands in the list itself."""
    return [say("I give the labels.", select(question), READ, 'answer["content"] = str(labels)', READY)]


def no_answer(question: Question, draw: random.Random) -> list[Reply]:
    """Reads everything, prints it, and forgets to answer."""
    return [say("I print the labels.", select(question), READ, "print(labels[:9])", READY)]


def without_selection(question: Question, draw: random.Random) -> list[Reply]:
    if not question.selects:
        return first_lines(question, draw)
    everything = Question(question.quantity, question.labels, "User: ")
    return [say("I take all lines.", *program(everything))]


def search_words(question: Question, draw: random.Random) -> list[Reply]:
    """Searches the text for the label's name, which does not occur there."""
    if question.quantity == "user":
        code = [
            select(question),
            'users = [x.split(" || ")[1] for x in rows]',
            'answer["content"] = max(users, key=users.count)',
        ]
    else:
        code = conclude(question, count="context.count")
    return [say("I search for the word.", *code, READY)]


def count_lines(question: Question, draw: random.Random) -> list[Reply]:
    if question.quantity != "count":
        return search_words(question, draw)
    return [
        say(
            "I count the lines.",
            select(question),
            f"n = len(rows) // {draw.randint(1, 4)}",
            'answer["content"] = f"Answer: {n}"',
            READY,
        )
    ]


def guess(question: Question, draw: random.Random) -> list[Reply]:
    return [say("I guess.", *_guessed(question, draw))]


def look_and_guess(question: Question, draw: random.Random) -> list[Reply]:
    return [look(draw), look(draw), say("I guess.", *_guessed(question, draw))]


def ask_at_once(question: Question, draw: random.Random) -> list[Reply]:
    """Hands the whole context to one sub-LLM call."""
    first = question.labels[0]
    if question.quantity == "count":
        code = [f'r = llm_batch(["Count {first}: " + context])', 'answer["content"] = f"Answer: {r[0]}"']
    elif question.quantity in ("most", "least"):
        code = ['r = llm_batch(["Label: " + context])', 'answer["content"] = f"Label: {r[0]}"']
    else:
        return guess(question, draw)
    return [say("I ask about all of it at once.", *code, READY)]


def prose_only(question: Question, draw: random.Random) -> list[Reply]:
    """A reply without code; nothing runs, and the next one guesses."""
    return ["I think about the question.", *guess(question, draw)]


def _guessed(question: Question, draw: random.Random) -> list[str]:
    if question.quantity == "count":
        text = f"Answer: {draw.randint(0, 30)}"
    elif question.quantity == "compare":
        text = f"Answer: {question.labels[0]} is {draw.choice(WORDS)} {question.labels[1]}"
    elif question.quantity == "user":
        text = f"User: {draw.randint(10, 99)}"
    else:
        text = f"Label: {draw.choice(question.labels)}"
    return [f'answer["content"] = "{text}"', READY]


STRATEGIES: dict[str, tuple[Callable[[Question, random.Random], list[Reply]], float]] = {
    "sound": (sound, 0.11),
    "look_then_sound": (look_then_sound, 0.03),
    "sound_with_check": (sound_with_check, 0.04),
    "sound_by_hand": (sound_by_hand, 0.03),
    "sound_after_error": (sound_after_error, 0.03),
    "first_lines": (first_lines, 0.12),
    "without_selection": (without_selection, 0.08),
    "search_words": (search_words, 0.09),
    "count_lines": (count_lines, 0.06),
    "raw_labels": (raw_labels, 0.09),
    "no_answer": (no_answer, 0.08),
    "guess": (guess, 0.11),
    "look_and_guess": (look_and_guess, 0.05),
    "ask_at_once": (ask_at_once, 0.05),
    "prose_only": (prose_only, 0.03),
    "sound_twice": (sound_twice, 0.0),
}
"""Name -> teacher and its share of the sessions."""
BATCHING = STRATEGIES.keys() - {"search_words", "count_lines", "guess", "look_and_guess", "prose_only"}
"""Those that call `llm_batch`."""


def make_plan(question: Question, strategy: str, draw: random.Random) -> Plan:
    """A plan of the given strategy."""
    replies = STRATEGIES[strategy][0](question, draw)
    replies[0] = f"{restate(question)}\n{replies[0]}"
    return Plan(strategy, replies, fallback=say("That failed. I guess.", *_guessed(question, draw)))
