"""The scripted sub-LLM's way through the web: search for the clue, follow the link, read what is asked for.

It knows only what the tools gave, and how pages word their facts. `walk` is a generator of tool calls that gets their
results, so it runs as an LLM too (`researcher.py`).
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass

from tiny_rlm.deepdive.quest import Quest


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, and what is said before it. To follow one of several links it is quoted from the page first, up to
    its address: a small model copies best what it has just written down, and where the next token is the page's own."""

    tool: str
    arguments: dict[str, str | int]
    said: str = ""


Walk = Generator[Call, str, str]
"""Yields a call, gets its result, and returns the answer."""

UNKNOWN = "unknown"
_LINK = r"\[([^\]]*)\]\((\S+?)\)"
_RESULT = re.compile(r"^\d+\. (.*)\n(\S+)\n(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Wording:
    """How pages say that things are linked: `find` looks for it, and in the sentences `L` is the link."""

    find: str
    sentences: tuple[str, ...]
    from_target: bool = False
    """In the question the thing with the sentence on its page comes last: `A river flows through that city`."""

    def link(self, page: str) -> tuple[str, str, str] | None:
        """Title and address of the linked page, and the words in which the page links to it, up to the address."""
        for sentence in self.sentences:
            if found := re.search(sentence.replace("L", _LINK, 1), page):
                return found[1], found[2], f"{found[0].split('](')[0]}]("
        return None


WORDINGS = {
    "stands in": _Wording("stands in|find it|quarters", ("stands in L", "find it in L", "two quarters of L")),
    "designed by": _Wording("design", ("designed by L", "designer was L")),
    "painted by": _Wording("is by|painted by", ("is by L", "painted by L")),
    "hangs in": _Wording("hangs in|owner", ("hangs in L", "owner is L")),
    "born in": _Wording("came from|place of birth", ("came from L", "place of birth is L")),
    "taught by": _Wording("taught by|teacher", ("taught by L", "teacher of those years was L")),
    "lies in": _Wording("lies in|belongs to", ("lies in L", "belongs to L")),
    "flows through": _Wording("flows|built on", ("The L flows", "built on the L"), from_target=True),
    "the patron of": _Wording("rooms by|patron", ("its rooms by L", "patron was L"), from_target=True),
}
"""By the words of a question."""
VALUES = {
    "founded": ("found", r"(?:founding year is|was founded in) (\d+)"),
    "opened": ("opened|first cart", r"(?:opened|crossed it) in (\d+)"),
    "painted": ("painted in|signature", r"(?:painted in|signature stands) (\d+)"),
    "born": ("was born|date of birth", r"(?:born on|date of birth is) (\d+ [A-Z][a-z]+ \d+)"),
    "inhabitants": ("inhabitants|census", r"([\d,]+) (?:inhabitants|people)"),
    "kilometres": ("kilometres", r"([\d,]+) kilometres"),
    "metres": ("metres", r"([\d,]+) metres"),
    "centimetres": ("centimetres", r"([\d,]+) centimetres"),
}
"""What is asked -> what to look for on a page, and a pattern of the value."""


def walk(quest: Quest) -> Walk:
    """The whole way; without a link in the quest, its first half."""
    found = yield from _search(quest.clue, quest.noun, 1)
    if not found:
        return UNKNOWN
    title, url = found[0]
    if not quest.link:
        return (yield from _read(title, url, quest.asked))
    words, wording = next((item for item in WORDINGS.items() if item[0] in quest.link), ("", None))
    if wording is None:
        return UNKNOWN
    if quest.link.startswith(("A ", "An ")) == wording.from_target:
        linked = wording.link((yield _scan(url, wording.find)))
        if linked is None:
            return UNKNOWN
        name, target, words = linked
        return (yield from _read(name, target, quest.asked, words))
    noun = re.search(r"^An? (\w+)| of an? (\w+)$", quest.link)
    if noun is None:
        return UNKNOWN
    kind = noun[1] or noun[2]
    candidates = yield from _search(f"{title} {kind} {words}", kind, 3)
    for name, candidate in candidates:
        linked = wording.link((yield _scan(candidate, wording.find, name)))
        if candidate != url and linked is not None and linked[1] == url:
            return (yield from _read(name, candidate, quest.asked))
    return UNKNOWN


def skip_the_link(quest: Quest) -> Walk:
    """A weak walk: reads the first page for what is asked about the second one."""
    return (yield from walk(Quest(quest.clue, "", quest.asked)))


def _search(query: str, noun: str, count: int) -> Generator[Call, str, list[tuple[str, str]]]:
    """Titles and addresses of the results whose first sentence says that they are such a thing."""
    results = _RESULT.findall((yield Call("search_web", {"query": query, "count": count})))
    fitting = r" was an? " if noun == "person" else rf" (?:is|was) an? {noun}\.$"
    return [(title, url) for title, url, lead in results if re.search(fitting, lead)]


def _read(title: str, url: str, asked: str, said: str = "") -> Walk:
    """What is asked about a page."""
    if asked == "called":
        return title
    find, pattern = VALUES[asked]
    found = re.search(pattern, (yield _scan(url, find, said)))
    return found[1] if found else UNKNOWN


def _scan(url: str, find: str, said: str = "") -> Call:
    return Call("scan_page", {"url": url, "find": find}, said)
