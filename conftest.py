"""What a run collects: files of which its marker expression (`-m`) can select no test are not imported.

Importing all test files takes some ten seconds of a core, and each of the slow runs of `scripts/test.sh` needs few.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent
NAMES = ("vllm", "slow", "identity")
MARK = re.compile(rf"\bmark\.({'|'.join(NAMES)})\b")
OF_ALL = re.compile(r"^pytestmark = (.*(?:\n .*)*)", re.MULTILINE)
HELPER = re.compile(r"^from (tests(?:\.\w+)+) import", re.MULTILINE)


class Marks(NamedTuple):
    """Which of NAMES the tests of a file have: all of them, and some of them."""

    all: frozenset[str]
    some: frozenset[str]


@cache
def marks_in(path: Path) -> Marks:
    """Marks that stand in the file, or in a helper that it imports from `tests`."""
    text = path.read_text("utf-8")
    some = set(MARK.findall(text))
    for name in HELPER.findall(text):
        helper = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if helper.is_file():
            some |= marks_in(helper).some
    return Marks(frozenset(MARK.findall("".join(OF_ALL.findall(text)))), frozenset(some))


@cache
def can_select(expression: str, marks: Marks) -> bool:
    """Whether `-m expression` is true of any test that a file with these marks can have."""
    free = sorted(marks.some - marks.all)
    try:
        code = compile(expression, "-m", "eval")
        return any(
            eval(code, {"__builtins__": {}}, {name: name in marks.all or has.get(name, False) for name in NAMES})
            for has in (dict(zip(free, values, strict=True)) for values in product((False, True), repeat=len(free)))
        )
    except (SyntaxError, NameError, TypeError):
        return True  # other markers, or a mistake, of which pytest knows more


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    expression = config.option.markexpr
    if not expression or collection_path.suffix != ".py":
        return None
    return None if can_select(expression, marks_in(collection_path)) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is known of a file by its text holds for each of its tests, so that no run misses any."""
    for item in items:
        marks, has = marks_in(item.path), {mark.name for mark in item.iter_markers()}.intersection(NAMES)
        if not marks.all <= has <= marks.some:
            raise pytest.UsageError(f"{item.nodeid} has the marks {has}; conftest.py reads {marks} in its file")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """What is imported stays: the garbage collector neither looks for it meanwhile nor at it later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # some libraries tell of objects that are left at the end
