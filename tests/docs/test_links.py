"""Links between documents lead to files and headings that there are, as a git host shows them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, ROOT, pages

LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
WEB = ("https://", "http://", "mailto:")


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings: lower case, no punctuation, blanks as hyphens, repeated ones counted."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if n == 0 else f"{slug}-{n}" for slug, most in found.items() for n in range(most + 1)}


def broken(page: str, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for link in [first or second for first, second in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text)))]:
        if link.startswith(WEB):
            continue
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists():
            wrong.append(f"{page}: {link} is not there")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.resolve()):
            wrong.append(f"{page}: {link}: no such heading")
    return wrong


def test_links_lead_somewhere():
    assert [text for page, source in pages().items() for text in broken(page, source)] == []


@pytest.mark.parametrize("link", ["nothing.md", "README.md#nothing", "docs/nothing.png"])
def test_a_broken_link_is_found(link):
    assert len(broken("README.md", f"[text]({link})")) == 1


def test_every_page_of_docs_is_linked_to():
    """From another page, so that nobody has to know that it is there."""
    linked = set()
    for page, text in pages().items():
        if page.startswith("docs/modules/"):
            continue
        for link, _ in LINK.findall(text):
            path = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            if path != (ROOT / page).resolve():
                linked.add(path)
    wanted = {path.resolve() for path in ROOT.glob("docs/*.md")}
    assert {path.name for path in wanted - linked} <= {"index.md"}
