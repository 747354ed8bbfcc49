"""A second reader of the questions, and a brute-force search for their answers over what was read from pages.

It imports nothing of the generator; `words` is a dictionary from what a question calls an object to what pages call it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from read_web import KINDS, MONTHS

HABITS = {
    "city": [
        "holds a fair every spring for X",
        "has a coat of arms that shows X",
        "was once ruled by a guild of makers of X",
    ],
    "university": ["has a library that was left a bequest of X", "has students who carry X on graduation day"],
    "person": ["collected X", "wrote a treatise on X", "was afraid of X", "gave X to every guest"],
    "museum": ["shows X in its largest room", "has a cellar full of X"],
    "company": ["began by selling X", "has a trade mark that shows X"],
    "book": ["has a chapter about X", "has a cover that shows X"],
    "painting": ["shows X on a table", "shows X in a boat"],
    "bridge": ["has railings in the shape of X", "has traders on it who sell X"],
    "film": ["has a scene full of X", "has a poster that shows X"],
}
DATED = {
    "was founded in": "founded",
    "was opened in": "opened",
    "was born in": "born",
    "appeared in": "year",
    "was painted in": "year",
    "was released in": "year",
}
RELATIONS = [
    ("source", "S rises in D"),
    ("country", "S lies in D"),
    ("river", "D flows through S"),
    ("city", "S stands in D"),
    ("birthplace", "S was born in D"),
    ("studied", "S studied at D"),
    ("teacher", "S was taught by D"),
    ("patron", "D was the patron of S"),
    ("seat", "S has its seat in D"),
    ("founder", "S was set up by D"),
    ("author", "S was written by D"),
    ("publisher", "S was brought out by D"),
    ("painter", "S was painted by D"),
    ("museum", "S hangs in D"),
    ("designer", "S was designed by D"),
    ("director", "S was directed by D"),
    ("book", "S is based on D"),
]
ASKED = [
    (r"On what date was", "born"),
    (r"founded\?", "founded"),
    (r"opened\?", "opened"),
    (r"In what year", "year"),
    (r"How many inhabitants", "population"),
    (r"How many (kilo)?metres long", "length"),
    (r"How many pages", "pages"),
    (r"How many centimetres wide", "width"),
    (r"How many minutes", "minutes"),
    (r"called\?", "name"),
]
THING = r"(?:[Tt]hat|[Aa]n?|[Aa]nother) .+"


def read_question(text: str, words: dict[str, str]) -> tuple[list[dict], str]:
    """Steps (kind, noun or None, clues as (attribute, low, high), relation, backwards) and what is asked."""
    *sentences, asked = re.split(r"(?<=\.) ", text.partition(" Give your")[0])
    steps = [_thing(re.fullmatch(r"I am thinking of (.*)\.", sentences[0])[1], words)]
    for sentence in sentences[1:]:
        relation, found = _relation(sentence)
        backwards = found["dst"].lower().startswith("that ")
        assert backwards != found["src"].lower().startswith("that ")
        steps.append(
            _thing(found["src" if backwards else "dst"], words) | {"relation": relation, "backwards": backwards}
        )
    return steps, next(attribute for pattern, attribute in ASKED if re.search(pattern, asked))


def _relation(sentence: str) -> tuple[str, re.Match]:
    for relation, form in RELATIONS:
        pattern = form.replace("S", f"(?P<src>{THING})").replace("D", f"(?P<dst>{THING})")
        if found := re.fullmatch(pattern + r"\.", sentence):
            return relation, found
    raise ValueError(f"no relation: {sentence!r}")


def _thing(text: str, words: dict[str, str]) -> dict:
    noun, _, clues = re.match(r"(?:an?|another) (.*?)(?:( who| that) (.*))?$", text, re.I).groups()
    kind = KINDS.get(noun, noun)
    step = {"kind": kind, "noun": noun if noun in KINDS else None, "clues": []}
    for clue in clues.split(" and ") if clues else ():
        step["clues"].append(_clue(kind, clue, words))
    return step


def _clue(kind: str, clue: str, words: dict[str, str]) -> tuple[str, Any, Any]:
    if dated := re.fullmatch(r"(.* in) (the )?(\d+)s?", clue):
        year = int(dated[3])
        return DATED[dated[1]], year, year + 9 if dated[2] else year
    for number, form in enumerate(HABITS[kind]):
        if found := re.fullmatch(form.replace("X", "(.*)"), clue):
            value = (number, words.get(found[1], found[1]))
            return "habit", value, value
    raise ValueError(f"no clue: {clue!r}")


def fits(page: dict, step: dict) -> bool:
    """Whether a page is one of a thing of that kind for which all clues hold."""
    if page["kind"] != step["kind"] or step["noun"] not in (None, page["noun"]):
        return False
    for attribute, low, high in step["clues"]:
        value = page["values"][attribute]
        if not low <= (value[0] if attribute == "born" else value) <= high:
            return False
    return True


def said(page: dict, asked: str) -> str:
    """The answer that a page gives, as a text."""
    if asked == "name":
        return page["title"]
    value = page["values"][asked]
    return f"{value[2]} {MONTHS[value[1] - 1]} {value[0]}" if asked == "born" else str(value)


class Read:
    """Pages that were read, by address, and what hangs on what."""

    def __init__(self, pages: dict[str, dict]) -> None:
        self.pages = pages
        self.sources: dict[tuple[str, str, str], list[str]] = {}
        for url, page in pages.items():
            for relation, target in page["links"].items():
                self.sources.setdefault((page["kind"], relation, target), []).append(url)

    def answers(self, steps: list[dict], asked: str, without: str = "") -> set[str]:
        """All answers to a question, one per end of a walk; `without` the page of that address."""
        found: Iterable[str] = [url for url, page in self.pages.items() if url != without and fits(page, steps[0])]
        for step in steps[1:]:
            found = set(self._follow(found, step, without))
        return {said(self.pages[url], asked) for url in found if asked == "name" or url != without}

    def _follow(self, found: Iterable[str], step: dict, without: str) -> Iterator[str]:
        for url in found:
            if step["backwards"]:
                ends = self.sources.get((step["kind"], step["relation"], url), [])
                ends = [end for end in ends if end != without]
            else:
                links = {} if url == without else self.pages[url]["links"]
                ends = [links[step["relation"]]] if step["relation"] in links else []
            for end in ends:
                # Without a clue nothing of the page itself is needed: its kind is known from the relation.
                if (not step["clues"] and not step["noun"]) or (end != without and fits(self.pages[end], step)):
                    yield end
