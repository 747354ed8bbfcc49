"""docs/scoring.md is what the scorers say today, and its ports are what was recorded."""

from __future__ import annotations

import pytest

from tests.rewards.hostile import cases

pytest.importorskip("math_verify", reason="the extra `math` is not installed")
import scoring_doc

PORTS = {
    "oolong-rlm": "pi_oolong_rlm",
    "oolong-synth-v1": "pi_oolong_synth_v1",
    "MIT training": "mit_rlm_training",
    "no extraction": "rlm_branch_no_extraction",
    "plain math-verify": "math_verify_direct",
    "yes-in-reply": "pi_yes_in_lower",
}


def benchmark(name: str) -> scoring_doc.Benchmark:
    return next(b for b in scoring_doc.BENCHMARKS if b.name == name)


def test_the_page_is_up_to_date():
    page = scoring_doc.PAGE.read_text("utf-8")
    assert page == scoring_doc.render(), "run python scripts/scoring_doc.py"


def test_every_case_shows_something():
    for table in scoring_doc.BENCHMARKS:
        for case in table.cases:
            assert set(case.ports) <= set(table.ports)
            official = next(iter(table.columns.values()))(case)
            assert all(score != official for score in case.ports.values()), case


def test_what_ports_of_oolong_score_is_what_was_recorded():
    recorded = {(c["gold"], c["output"]): c for c in cases("oolong_ports_differences.json", "differences")}
    for case in benchmark("Oolong").cases:
        found = recorded.get((case.gold, case.answer), {})
        assert {PORTS[port]: score for port, score in case.ports.items()} == {
            port: found[port] for port in list(PORTS.values())[:3] if port in found
        }, case


def test_what_ports_of_math_and_deepdive_score_is_what_was_recorded():
    math = {(c["gold"], c["text"]): c for c in cases("math.json")}
    judge = {("", c["judge_text"]): c for c in cases("deepdive.json", "judge_cases")}
    for name, recorded in (("Math", math), ("DeepDive: the judge's verdict", judge)):
        for case in benchmark(name).cases:
            for port, score in case.ports.items():
                assert recorded[case.gold, case.answer][PORTS[port]] == score, case
