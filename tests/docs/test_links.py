"""Links between documents lead to files and headings that there are, as a git host shows them."""

from __future__ import annotations

import posixpath
import re
from functools import cache
from pathlib import Path

import pytest

import docs_site
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


def outside_of_the_site(page: str, text: str) -> list[str]:
    """The links of a page of the site to files of the repository that are no part of it."""
    links = [first or second for first, second in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text)))]
    names = [link.partition("#")[0] for link in links if not link.startswith(WEB)]
    paths = [posixpath.normpath(posixpath.join(posixpath.dirname(page), name)) for name in names if name]
    return [path for path in paths if not path.startswith("docs/") and path not in docs_site.targets()]


def test_the_site_has_a_page_for_every_link():
    for page, text in pages().items():
        if page.startswith("docs/") or page in docs_site.pages_outside():
            assert outside_of_the_site(page, text) == [], page
    assert outside_of_the_site("docs/x.md", "[a](../rlm_env/task.py), [b](../README.md)") == ["rlm_env/task.py"]


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
