"""Questions of one hop as the lessons understand them, and the request that the root LLM makes of one for a sub-LLM.

A request is `Find: CLUE; LINK; ASKED`, all of it copied from the question: `Find: bridge that has traders on it who
sell violins; stands in a city; founded`. The walk through the web that answers it is in `walk.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BEGIN = "Find: "
_QUESTION = re.compile(r"I am thinking of an? (?P<clue>[^.]+)\. (?P<link>[^.]+)\. (?P<ask>[^?.]+\?)(?P<form> Give .*)?")
_VAGUE = re.compile(r"(?:In what year|On what date|How many|What) [^?.]+\?")
_ASKED = re.compile(r"How many (inhabitants|kilometres|metres|centimetres) |(founded|opened|painted|born|called)\?$")


@dataclass(frozen=True, slots=True)
class Quest:
    """What is asked for. In a request that leaves something out, `link` is empty or `clue` the noun alone."""

    clue: str
    """`bridge that has traders on it who sell violins`."""
    link: str
    """How the thing asked about is linked to that: `stands in a city`, `A museum stands in that city`."""
    asked: str
    """`called`, the verb of a date (`founded`), or what is counted (`inhabitants`)."""
    ask: str = ""
    """The question's last sentence, of a quest that was read from a question."""
    formed: bool = False
    """The question names the form of an answer."""

    @property
    def noun(self) -> str:
        """What the clue describes."""
        return re.split(r" (?:that|who) ", self.clue)[0]

    @property
    def fields(self) -> str:
        """The parts of the request that are there."""
        return "; ".join(filter(None, (self.clue, self.link, self.asked)))


def read_question(text: str) -> Quest:
    """Raises ValueError for a question that no teacher understands."""
    if not (found := _QUESTION.fullmatch(text)) or not (asked := _ASKED.search(found["ask"])):
        raise ValueError(f"no teacher understands this question: {text}")
    link = re.sub(r"^That \w+(?: \w+)?? (?=was |stands |hangs |lies |rises |flows )", "", found["link"])
    return Quest(found["clue"], link, asked[1] or asked[2], found["ask"], found["form"] is not None)


def read_request(text: str) -> Quest | None:
    """The inverse of a request, or a whole question; None for any other text."""
    if text.startswith(BEGIN):
        fields = text.removeprefix(BEGIN).split("; ")
        if len(fields) in (2, 3):
            return Quest(fields[0], fields[1] if len(fields) == 3 else "", fields[-1])
        return None
    try:
        return read_question(text)
    except ValueError:
        return None


def is_vague(text: str) -> bool:
    """Whether it is the last sentence of a question alone, which nobody can answer."""
    return _VAGUE.fullmatch(text) is not None
