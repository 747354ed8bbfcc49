"""Weak strategies in `codeqa-rlm`: shortcuts and slips that real small models show."""

from __future__ import annotations

import random

from tiny_rlm.codeqa.programs import TEXT, ask, finish, options, pick, search, start
from tiny_rlm.codeqa.questions import CodeQuestion
from tiny_rlm.codeqa.sound import LOOKS, before_search, find_heirs
from tiny_rlm.lessons import READY, Reply, say


def guessed(draw: random.Random) -> list[str]:
    return [f'answer["content"] = "The correct answer is ({draw.choice("ABCD")})"', READY]


def guess(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    return [say("I guess.", *guessed(draw))]


def look_and_guess(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    return [say("I look first.", draw.choice(LOOKS)), say("I guess.", *guessed(draw))]


def first_file(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """The option that the first file names most often."""
    return [say("The first file will do.", "text = list(context.values())[0]", *_most_named(question))]


def most_named(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """The option that all files together name most often."""
    return [say("I count the names.", TEXT, *_most_named(question))]


def _most_named(question: CodeQuestion) -> list[str]:
    return finish(options(question), 'i = max(range(4), key=lambda k: text.count(options[k].split(".")[-1]))')


def first_defined(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """The first option that occurs anywhere, which is nearly always the first option."""
    return [
        say(
            "I take the first one that is there.",
            TEXT,
            options(question),
            *finish('i = [x.split(".")[-1] in text for x in options].index(True)'),
        )
    ]


def name_in_block(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """The first option whose code holds the name, in a comment, a text or a branch too; of a default, the first value
    that the parameter has anywhere."""
    if question.family == "default":
        code = [TEXT, options(question), f'i = max(range(4), key=lambda k: "{question.member}=" + options[k] in text)']
    else:
        name = question.member or question.name
        code = [*start(question), f'i = max(range(4), key=lambda k: "{name}" in blocks[options[k]])']
    return [say("I search for the name.", *finish(*code))]


def no_answer(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """Reads everything, prints the replies, and forgets to answer."""
    code = [*start(question), *ask(question), "print(replies)", READY]
    return [*find_heirs(question), say("I print the replies.", *code)]


def wrong_form(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """Reads and finds the option, and hands it in in a form that is no answer."""
    return [*find_heirs(question), _give(draw, *start(question), *ask(question), pick(question))]


def wrong_form_search(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """The same without sub-LLMs."""
    return [*before_search(question), _give(draw, *search(question))]


def _give(draw: random.Random, *code: str) -> str:
    """The bare letter of option `i`, or what it stands for."""
    form = draw.choice(['"ABCD"[i]', "options[i]"])
    return say("I give the option.", *code, f'answer["content"] = {form}', READY)


def ask_at_once(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """Hands the question and all files to one sub-LLM, whose window holds only short ones."""
    return [
        say(
            "I ask about all of it at once.",
            TEXT,
            f'r = llm_batch(["""Choose: {question.chosen_from}\n""" + text])',
            'answer["content"] = f"The correct answer is ({r[0]})"',
            READY,
        )
    ]


def prose_only(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """A reply without code; nothing runs, and the next one guesses."""
    return ["I think about the question.", *guess(question, draw)]
