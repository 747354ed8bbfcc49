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
    layers = re.search(r"containers = rlm_env\nlayers =\n((?:    .+\n)+)", contract)
    assert layers is not None
    rooms = re.findall(r"\w+", layers[1])
    modules = {path.stem for path in (ROOT / "rlm_env").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert modules - {"__init__"} == set(rooms)
    rows = TEXT.split("## Rooms")[1].split("\n## ")[0].split("| `")[1:]
    row_of = {room: [at for at, row in enumerate(rows) if _is_named(room, row)] for room in rooms}
    assert {room: at for room, at in row_of.items() if len(at) != 1} == {}, "each room stands in one row of the table"
    layered = [
        sorted((row_of[room][0] for room in re.findall(r"\w+", layer)), reverse=True)
        for layer in layers[1].splitlines()
    ]
    order = [at for layer in layered for at in layer]
    assert order == sorted(order, reverse=True), "the foundation comes first, as in .importlinter from below"


def _is_named(room: str, row: str) -> bool:
    """Whether the first cell of a row names the room."""
    return re.search(rf"(?:^|`)(?:rlm_env/)?{room}(?:/|\.py)`", row.split(" | ")[0]) is not None


def test_the_pages_of_modules_are_up_to_date():
    assert modules_doc.stored() == modules_doc.pages(), "run python scripts/modules_doc.py"


def test_the_pages_of_modules_name_every_function():
    """A name is in the page of its room, also one that begins with `_` and has no docstring."""
    pages = "".join(modules_doc.pages().values())
    for place in ("`Endpoint._tries`", "`_Pools.admits`", "`resource_limits`", "`LONGEST_WAIT`"):
        assert place in pages
