"""docs/publishing.md tells the truth: rules, words of refusals, the files of a new package, versions of tools."""

import re
from pathlib import Path

from rlm_env.hub.check import RULES
from rlm_env.hub.new import FILES
from rlm_env.hub.project import read_project
from tests.hub.conftest import PRIME

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "publishing.md").read_text("utf-8")
SOURCES = "".join(
    path.read_text("utf-8")
    for folder in ("rlm_env/hub", "rlm_env/cli", "tests/hub/servers.py")
    for path in sorted([ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py"))
)


def rows(section: str) -> list[list[str]]:
    """The cells of the table of a section, without its head."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:3] == "| `"]


def test_every_rule_of_check_is_explained():
    listed = [rule for row in rows("What `check` finds") for rule in re.findall(r"`([a-z-]+)`", row[0])]
    assert sorted(listed) == sorted(RULES)


def test_every_file_of_a_new_package_is_explained():
    listed = {row[0].strip("`") for row in rows("What `new` writes")}
    written = {path.replace("@module@", "my_env") for path in FILES.values()}
    assert listed == written - {"my_env/__init__.py"}


def test_the_words_of_refusals_are_those_that_are_said():
    said = [words for row in rows("Refusals and failures") for words in re.findall(r"`([^`]+)`", row[0])]
    assert len(said) >= 15
    ours = [words.replace("--to hub needs the command prime", "--to hub needs the command ") for words in said]
    assert [words for words in ours if words not in SOURCES] == []


def test_versions_are_those_that_were_tried():
    needed = " ".join(read_project(ROOT).metadata["optional-dependencies"]["hub"])
    assert f"(tested: {PRIME})" in PAGE
    assert all(text in needed for text in ("twine>=7,<8", "huggingface_hub>=2.4,<3"))
    assert "twine (7)" in PAGE
    assert "huggingface_hub 2.4" in PAGE
