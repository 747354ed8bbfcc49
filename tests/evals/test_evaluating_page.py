"""docs/evaluating.md: its outcomes and exit codes are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from rlm_env.cli.common import EXIT_CODES
from rlm_env.evals.outcomes import Outcome

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evaluating.md").read_text("utf-8")


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
