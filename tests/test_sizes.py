"""One idea a file: no file of over 400 lines, no function of over 75, and a median well below."""

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("rlm_env", "rewards", "environments", "scripts", "examples")
FILES = [
    path
    for place in PLACES
    for path in sorted((ROOT / place).rglob("*.py"))
    if "tests" not in path.relative_to(ROOT).parts
]
LINES = {path: path.read_text("utf-8").count("\n") for path in FILES}


def test_no_file_is_long():
    assert {str(path.relative_to(ROOT)): lines for path, lines in LINES.items() if lines > 400} == {}


def test_half_of_all_files_are_short():
    assert median(lines for path, lines in LINES.items() if "scripts" not in path.parts) < 120


@pytest.mark.parametrize("place", PLACES)
def test_no_function_is_long(place):
    long = {}
    for path in (path for path in FILES if path.is_relative_to(ROOT / place)):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 75:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}
