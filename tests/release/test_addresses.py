"""What a release says about where the project lives: no relative link is left, each leads to a file that there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from release_addresses import absolute_links, with_urls

ROOT = Path(__file__).parents[2]
AT, TAG = "https://example.com/somebody/rlm-env", "v1.2.3"
README = (ROOT / "README.md").read_text("utf-8")


def test_every_link_of_readme_leads_to_a_file_of_the_tag():
    moved = absolute_links(README, AT, TAG)
    assert re.findall(r"\]\((?!https://|#)", moved) == []
    links = re.findall(rf"{AT}/(raw|blob)/{TAG}/([^)#\s]+)", moved)
    assert len(links) >= 30
    for form, name in links:
        assert (ROOT / name).exists(), name
        assert (form == "raw") == name.endswith((".svg", ".png")), name


def test_code_and_addresses_stay():
    text = "[a](b.md#c) [d](https://e.org) [![f](g.png)](h/) [i](#j)\n```python\nx = y[0](z)\n```\n[k](l)\n"
    moved = f"[a]({AT}/blob/{TAG}/b.md#c) [d](https://e.org) [![f]({AT}/raw/{TAG}/g.png)]({AT}/blob/{TAG}/h/) [i](#j)\n"
    moved += f"```python\nx = y[0](z)\n```\n[k]({AT}/blob/{TAG}/l)\n"
    assert absolute_links(text, AT, TAG) == moved


@pytest.mark.parametrize("name", [".", *(path.parent.name for path in ROOT.glob("environments/*/pyproject.toml"))])
def test_packages_say_where_the_repository_is(name):
    path = ROOT / "pyproject.toml" if name == "." else ROOT / "environments" / name / "pyproject.toml"
    before = tomllib.loads(path.read_text("utf-8"))
    after = tomllib.loads(with_urls(path.read_text("utf-8"), AT, TAG))
    urls = after["project"].pop("urls")
    assert urls["Homepage"] == AT
    assert urls["Issues"] == f"{AT}/issues"
    kept = before["project"].pop("urls", {})
    assert kept.items() <= urls.items()
    assert after == before
    for url in urls.values():
        if url.startswith(f"{AT}/blob/{TAG}/"):
            assert (ROOT / url.removeprefix(f"{AT}/blob/{TAG}/")).is_file()
