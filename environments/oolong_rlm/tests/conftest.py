"""Fixtures of this package's tests: the recounting program, run as a separate process."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import oolong_rlm

HERE = Path(__file__).parent
DATA = Path(oolong_rlm.__file__).parent / "data"


@pytest.fixture(scope="session")
def recount() -> Callable[[Iterable[tuple[str, str, str]]], list[list]]:
    """(context, question, vocabulary) of many tasks -> what the second program finds."""

    def run(tasks: Iterable[tuple[str, str, str]]) -> list[list]:
        lines = "".join(
            json.dumps({"context": context, "question": question, "vocabulary": vocabulary}) + "\n"
            for context, question, vocabulary in tasks
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(HERE / "recount.py"), str(DATA / "vocabularies")],
            input=lines,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def read_gold() -> Callable[[str], list]:
    """A gold as the recounting program writes it: dates as [year, month, day]."""

    def read(gold: str) -> list:
        return ast.literal_eval(re.sub(r"datetime\.date\(([\d, ]+)\)", r"[\1]", gold))

    return read
