"""Fixtures of this package's tests: the recounting program, run as a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("recount_codeqa.py")


@pytest.fixture(scope="session")
def recount() -> Callable[..., list[list[str]]]:
    """(files, question) of many tasks -> the options that the second program finds to be true."""

    def run(tasks: Iterable[tuple[dict[str, str], str]], runs: bool = True) -> list[list[str]]:
        lines = "".join(
            json.dumps({"files": files, "question": question, "run": runs}) + "\n" for files, question in tasks
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM)], input=lines, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
