"""The documentation as a site: it is built without a warning, links and anchors included, and needs no other server."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import docs_site
from tests.docs.pages import ROOT
from tests.packages import needs

LOADED = re.compile(r'<(?:script|img|iframe|source)[^>]*\bsrc="[^"]*"|<link[^>]*rel="(?:stylesheet|icon|pre\w+)"[^>]*>')
"""What a browser fetches for a page."""
ELSEWHERE = re.compile(r'(?:src|href)="(?:https?:)?//')
IMPORTED = re.compile(r"(?:@import|url\()\s*['\"]?(https?://[^'\")]+)")
PAGES = [*docs_site.pages_outside().values(), docs_site.NOTEBOOK_PAGE]
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    needs("material")
    folder = tmp_path_factory.mktemp("site")
    # No `--quiet`: it silences the warnings that --strict counts.
    done = subprocess.run([*BUILD, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_a_broken_link_stops_the_build(site, tmp_path):
    """The settings of mkdocs.yml make errors of links and anchors that lead nowhere."""
    settings = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[0]
    own = re.sub(r"\n(hooks|extra_css): .*", "", settings)
    (tmp_path / "mkdocs.yml").write_text(own)
    (tmp_path / "docs").mkdir()
    for text in ("[a](other.md)", "[a](index.md#nowhere)"):
        (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
        done = subprocess.run(BUILD, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert "Aborted with 1 warnings in strict mode" in done.stdout + done.stderr


@pytest.mark.slow
def test_every_page_is_there(site):
    names = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    names |= {Path(page).with_suffix(".html") for page in [*PAGES, *docs_site.LISTINGS]}
    assert {str(name) for name in names if not (site / name).is_file()} == set()


@pytest.mark.slow
def test_the_notebook_is_a_page_and_a_file(site):
    page = (site / "notebook.html").read_text("utf-8")
    shown = re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]+>", "", page)))
    stored = (ROOT / docs_site.NOTEBOOK).read_text("utf-8")
    for cell in json.loads(stored)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert re.sub(r"\s+", "", text) in shown
        else:
            assert re.sub(r"[`#]|\s+", "", text) in shown.replace("¶", "")
    assert 'href="notebook.ipynb"' in page
    assert (site / "notebook.ipynb").read_text("utf-8") == stored


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site):
    wrong = []
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text("utf-8")
        wrong += [f"{path.name}: {tag}" for tag in LOADED.findall(text) if ELSEWHERE.search(tag)]
        wrong += [f"{path.name}: {url}" for url in IMPORTED.findall(text)]
    assert wrong == []


@pytest.mark.slow
def test_pictures_in_pages_are_there(site):
    for path in site.rglob("*.html"):
        for source in re.findall(r'<img[^>]*src="([^":]+)"', path.read_text("utf-8")):
            assert (path.parent / source).is_file(), f"{path.name}: {source}"


def test_the_menu_has_every_page_of_docs():
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r": ([\w/-]+\.md)$", menu, re.MULTILINE))
    wanted = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed == wanted | set(PAGES) | set(docs_site.LISTINGS)
