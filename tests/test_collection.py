"""conftest.py of the project: a run imports the files that it can select tests of, and no others."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import conftest

ALL_SLOW = "import pytest\n\npytestmark = [\n    pytest.mark.slow,\n]\n"
SOME_SLOW = "@pytest.mark.slow\ndef test_it(): ...\n"
BY_HELPER = "from tests.repl.levels import GUARD_FIRST\n"
ENGINE = "pytestmark = pytest.mark.vllm\n"
ENGINES = "pytestmark = pytest.mark.vllm\n\n\n@pytest.mark.slow\ndef test_it(): ...\n"
FAST = "def test_it(): ...\n"


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("not vllm and not slow", [SOME_SLOW, BY_HELPER, FAST]),
        ("slow and not vllm", [ALL_SLOW, SOME_SLOW, BY_HELPER]),
        ("vllm and not slow", [ENGINE, ENGINES]),
        ("vllm and slow", [ENGINES]),
        ("identity", []),
        ("of_somebody_else", [ALL_SLOW, SOME_SLOW, BY_HELPER, ENGINE, ENGINES, FAST]),
        ("slow(", [ALL_SLOW, SOME_SLOW, BY_HELPER, ENGINE, ENGINES, FAST]),
    ],
)
def test_files_of_which_a_run_can_select_tests(expression: str, selected: list[str], tmp_path: Path):
    found = []
    for number, text in enumerate([ALL_SLOW, SOME_SLOW, BY_HELPER, ENGINE, ENGINES, FAST]):
        path = tmp_path / f"test_{number}.py"
        path.write_text(text)
        if conftest.can_select(expression, conftest.marks_in(path)):
            found.append(text)
    assert found == selected


@pytest.mark.parametrize(
    ("text", "marks"), [(FAST, ["slow"]), (ALL_SLOW, []), (ENGINES, ["slow"]), (SOME_SLOW, ["slow", "vllm"])]
)
def test_marks_that_the_text_hides_end_the_run(text: str, marks: list[str], tmp_path: Path):
    path = tmp_path / "test_1.py"
    path.write_text(text)
    item: Any = SimpleNamespace(
        path=path, nodeid="test_1.py::test_it", iter_markers=lambda: [SimpleNamespace(name=name) for name in marks]
    )
    with pytest.raises(pytest.UsageError, match="test_it has the marks"):
        conftest.pytest_collection_modifyitems([item])


def test_no_other_hook_leaves_files_out():
    """With one in a folder of its own, a file of tests with an engine was in none of the runs of `scripts/test.sh`."""
    ours = (path for folder in ("tests", "environments") for path in (conftest.ROOT / folder).glob("**/conftest.py"))
    hooks = [path for path in ours if path != Path(conftest.__file__) and "ignore_collect" in path.read_text("utf-8")]
    assert hooks == []
