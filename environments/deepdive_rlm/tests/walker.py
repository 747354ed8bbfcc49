"""A solver that follows the walk with the tools alone: it reads the question, searches, opens pages, compares clues.

`walk(question, words)` is a generator: it yields lists of tool calls, (name, arguments), gets their results as texts,
and returns the answer. So the same solver runs straight on the tools and as the sub-LLM of a rollout.
"""

from __future__ import annotations

import re
from collections.abc import Generator

from read_question import fits, read_question, said
from read_web import HABITS, read_page

Calls = list[tuple[str, dict]]
RESULT = re.compile(r"^\d+\. .*\n(\S+)\n(.*)$", re.M)
COUNT = 20


def walk(question: str, words: dict[str, str]) -> Generator[Calls, list[str], str]:
    """The answer, or "" where the walk ends before."""
    steps, asked = read_question(question, words)
    at = yield from _first(steps[0])
    for step in steps[1:]:
        at = (yield from _sources(at, step)) if step["backwards"] else (yield from _targets(at, step))
    answers = {said(page, asked) for page in at.values()}
    return answers.pop() if len(answers) == 1 else ""


def _first(step: dict) -> Generator[Calls, list[str], dict[str, dict]]:
    number, thing = next(low for attribute, low, _ in step["clues"] if attribute == "habit")
    query = f"{step['noun'] or step['kind']} {HABITS[step['kind']][number].replace('X', thing)}"
    found = yield from _search(query, step, pages=3)
    return {url: page for url, page in found.items() if fits(page, step)}


def _sources(at: dict[str, dict], step: dict) -> Generator[Calls, list[str], dict[str, dict]]:
    matching = {}
    for url, page in at.items():
        found = yield from _search(f"{page['title']} {step['noun'] or step['kind']}", step, pages=5)
        matching |= {end: p for end, p in found.items() if p["links"].get(step["relation"]) == url and fits(p, step)}
    return matching


def _targets(at: dict[str, dict], step: dict) -> Generator[Calls, list[str], dict[str, dict]]:
    urls = [page["links"][step["relation"]] for page in at.values() if step["relation"] in page["links"]]
    found = yield from _open(urls)
    return {url: page for url, page in found.items() if fits(page, step)}


def _search(query: str, step: dict, pages: int) -> Generator[Calls, list[str], dict[str, dict]]:
    """Pages of the step's kind that a query finds, by what their first sentence says."""
    calls = [("search_web", {"query": query, "count": COUNT, "page": page}) for page in range(1, pages + 1)]
    results = yield calls
    noun = step["noun"] or {"person": "", "company": "company", "book": ""}.get(step["kind"], step["kind"])
    urls = [url for text in results for url, lead in RESULT.findall(text) if lead.endswith(f"{noun}.")]
    return (yield from _open(urls))


def _open(urls: list[str]) -> Generator[Calls, list[str], dict[str, dict]]:
    texts: list[str] = []
    for start in range(0, len(urls), 16):
        texts += yield [("open_lines", {"url": url}) for url in urls[start : start + 16]]
    read = {url: re.findall(r"^\d+: (.*)$", text, re.M) for url, text in zip(urls, texts, strict=True)}
    return {url: read_page(lines) for url, lines in read.items() if lines}
