"""README's table of scores is that of the numbers which a run has left in docs/results/."""

from __future__ import annotations

import json

import readme_table


def test_the_table_is_up_to_date():
    text = readme_table.README.read_text("utf-8")
    assert len(readme_table.BLOCK.findall(text)) == 1
    assert readme_table.with_table(text) == text, "run python scripts/readme_table.py"


def test_the_numbers_are_those_of_one_run_of_every_length_and_scaffold():
    numbers = json.loads(readme_table.NUMBERS.read_text("utf-8"))
    groups = [(group["length"], group["scaffold"], group["rollouts"]) for group in numbers["lengths"]]
    lengths = sorted({length for length, _, _ in groups})
    assert groups == [(length, scaffold, 16) for length in lengths for scaffold in ("standard", "rlm")]
    assert len(lengths) == 3
    assert {"rlm-env", "python"} <= numbers["versions"].keys()
