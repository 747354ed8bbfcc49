"""Sound strategies in `codeqa-rlm`: right wherever the sub-LLM is.

In `overrides` each begins with a turn that finds the heirs, and a search in `callers` with one that finds the names of
the function, so that no reply gets long.
"""

from __future__ import annotations

import random

from tiny_rlm.codeqa.programs import BLOCKS, CONCLUDE, ask, finish, heirs, names, options, pick, search, start
from tiny_rlm.codeqa.questions import CodeQuestion
from tiny_rlm.lessons import READY, Reply, say

LOOKS = ("print(list(context)[:9])", "print(list(context.values())[0][:200])", "print(len(context))")


def find_heirs(question: CodeQuestion) -> list[Reply]:
    """The turn before reading or searching; none where nothing is inherited."""
    return [say("First I find the heirs.", *heirs(question))] if question.family == "overrides" else []


def before_search(question: CodeQuestion) -> list[Reply]:
    """The turn before searching; none in `default`."""
    if question.family == "callers":
        return [say("First I find its names.", *names(question))]
    return find_heirs(question)


def _reads(question: CodeQuestion) -> list[str]:
    return finish(*start(question), *ask(question), pick(question))


def direct(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    return [*find_heirs(question), say("I read the code of the options.", *_reads(question))]


def look_first(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    return [say("I look first.", draw.choice(LOOKS)), *direct(question, draw)]


def check(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """Prints the replies before it uses them."""
    return [
        *find_heirs(question),
        say("I read the code of the options and check.", *start(question), *ask(question), "print(replies)"),
        say("The replies look right.", *finish(pick(question))),
    ]


def by_search(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """Without sub-LLMs."""
    return [*before_search(question), say("I search with code.", *finish(*search(question)))]


def by_hand(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """Prints the right option, and finds its letter itself."""

    def copy(observation: str) -> str:
        printed = observation.removeprefix("Output:").split()[0]
        letter = "ABCD"[question.options.index(printed)]
        return say(f"{printed} is option ({letter}).", f'answer["content"] = "The correct answer is ({letter})"', READY)

    return [
        *before_search(question),
        say("I search and print.", *search(question), "print(options[i])"),
        copy,
    ]


def after_error(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """A first cell that raises, then the whole program without the slip."""
    slips = [
        [options(question), BLOCKS],
        ["import re", options(question), 'blocks = context.split("\\n\\n\\n")'],
        ["import re", options(question), *ask(question), pick(question)],
    ]
    if question.family == "overrides":
        slips = [heirs(question)[1:]]
    first, *rest = direct(question, draw)
    assert isinstance(first, str)
    return [
        say("I try to read the code of the options.", *draw.choice(slips)),
        f"That failed. {first}",
        *rest,
    ]


def after_no_reply_fits(question: CodeQuestion, draw: random.Random) -> list[Reply]:
    """No reply is the one that the program looks for; then without sub-LLMs."""
    seeks = "i = options.index(str(replies))" if question.family == "default" else 'i = replies.index("Yes")'
    return [
        *find_heirs(question),
        say("I read the code of the options.", *start(question), *ask(question), seeks, CONCLUDE, READY),
        *(before_search(question) if question.family == "callers" else ()),
        say("No reply fits. I search with code.", *finish(*search(question))),
    ]
