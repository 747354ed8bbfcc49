"""docs/evaluating.md: its tables of options are those of the models, its outcomes and exit codes those of the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from rlm_env.cli.common import EXIT_CODES
from rlm_env.evals.outcomes import Outcome

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evaluating.md").read_text("utf-8")


@pytest.fixture
def tables(monkeypatch):
    """The script that writes the tables."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import options_tables

    yield options_tables
    sys.modules.pop("options_tables")


def test_tables_of_options_are_up_to_date(tables):
    assert tables.with_tables(PAGE) == PAGE, "run python scripts/options_tables.py"
    assert {name for _, name, _ in tables.BLOCK.findall(PAGE)} == {*tables.TABLES}


def test_every_option_has_a_meaning_or_speaks_for_itself(tables):
    for model in tables.TABLES.values():
        assert tables.field_texts(model).keys() <= set(tables.field_names(model))
        assert tables.field_texts(model)


def test_every_outcome_is_listed():
    table = PAGE.split("## Outcomes")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", table, re.MULTILINE))
    assert listed == {outcome.value: "no" if outcome is Outcome.ERROR else "yes" for outcome in Outcome}


def test_every_exit_code_is_listed():
    table = PAGE.split("## Exit codes")[1].split("\n## ")[0]
    listed = {code for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(", ")}
    assert listed == set(re.findall(r"\b\d+\b", EXIT_CODES))


def test_the_snippets_in_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(snippet, "docs/evaluating.md", "exec", flags=0x2000)  # top-level await, as in a notebook
        for line in snippet.splitlines():
            if line.startswith(("from ", "import ")):
                exec(line, {})
