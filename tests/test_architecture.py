"""docs/architecture.md names code that exists: every `file:function` in it can be found there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import modules_doc

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PLACES = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", TEXT)))


@cache
def names_in(path: Path) -> set[str]:
    """Functions, classes and constants of a file, and what stands in its classes as `Class.name`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        found |= names_of(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in names_of(inner)}
    return found


def names_of(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_every_place_exists(file, name):
    assert name in names_in(ROOT / file)


def test_there_are_twenty_changes_and_at_most_fifteen_stations():
    way, changes = (TEXT.split(f"## {title}")[1].split("\n## ")[0] for title in ("The way of", "Where to change"))
    assert len(re.findall(r"^\| \d+ \|", way, re.MULTILINE)) <= 15
    assert len(re.findall(r"^\| (?!---|what \||\*\*)", changes, re.MULTILINE)) >= 20


def test_rooms_are_those_of_the_import_contract():
    contract = (ROOT / ".importlinter").read_text("utf-8")
    layers = re.search(r"containers = rlm_env\nlayers =\n((?:    \w+\n)+)", contract)
    assert layers is not None
    table = TEXT.split("## Rooms")[1].split("\n## ")[0]
    for layer in layers[1].split():
        assert re.search(rf"`(?:rlm_env/)?{layer}(?:/|\.py)`", table), f"{layer} is not in the table of rooms"


def test_the_pages_of_modules_are_up_to_date():
    assert modules_doc.stored() == modules_doc.pages(), "run python scripts/modules_doc.py"


def test_the_pages_of_modules_name_every_function():
    """A name is in the page of its room, also one that begins with `_` and has no docstring."""
    pages = "".join(modules_doc.pages().values())
    for place in ("`Endpoint._tries`", "`_Pools.admits`", "`resource_limits`", "`LONGEST_WAIT`"):
        assert place in pages
