"""docs/evaluating.md: each row of its table of failures is played to each scaffold; nothing is a silent zero."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlm_env.evals.outcomes import Outcome
from rlm_env.scaffolds import SCAFFOLDS
from tests.evals.failures import FROM_THE_START, MODELS, PLAYS, play

PAGE = (Path(__file__).parents[2] / "docs" / "evaluating.md").read_text("utf-8")
ROW = re.compile(r"^\| ([^|`]+) \| (root|sub-LLM|judge) \| ([a-z, -]+) \| (\w+) \| (\d) \| (yes|no) \|$", re.MULTILINE)
CASES = [
    (failure, role, scaffold, outcome, int(code), in_mean)
    for failure, role, scaffolds, outcome, code, in_mean in ROW.findall(PAGE.split("## Failures")[1])
    for scaffold in scaffolds.split(", ")
]
FAST = ("rlm",)
"""The scaffolds that are tried in a fast run too. The whole table takes minutes."""


def mark(case: tuple) -> object:
    return pytest.param(*case, marks=[] if case[2] in FAST else [pytest.mark.slow], id=", ".join(map(str, case[:3])))


@pytest.mark.parametrize(("failure", "role", "scaffold", "outcome", "code", "in_mean"), map(mark, CASES))
def test_a_failure_has_the_outcome_that_the_page_tells(
    workplace, endpoint, monkeypatch, capfd, failure, role, scaffold, outcome, code, in_mean
):
    for module in ("http", "retries"):
        monkeypatch.setattr(f"rlm_env.llm.{module}.LONGEST_WAIT", 0.02)
    endpoint.window = 10**6
    assert play(endpoint, failure, role, scaffold) == (outcome, code, in_mean), capfd.readouterr().err


def test_every_failure_is_in_the_table_for_every_role_and_scaffold():
    told = {(failure, role, scaffold) for failure, role, scaffold, *_ in CASES}
    assert len(told) == len(CASES)
    for failure in PLAYS:
        for role in MODELS:
            meets = {"rlm", "rlm-tips", "summary"} if role == "sub-LLM" else {*SCAFFOLDS}
            assert {scaffold for one, of, scaffold in told if (one, of) == (failure, role)} == meets
    assert {failure.removeprefix(FROM_THE_START) for failure, *_ in told} == {*PLAYS}


def test_what_the_engine_did_is_in_no_mean():
    for _, _, _, outcome, _, in_mean in CASES:
        assert (in_mean == "no") == (outcome in ("none", Outcome.ERROR))
