"""`--until` end to end, on an endpoint in a thread: where a run stops, what it tells of it, how it goes on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import rlm_env
from rlm_env.cli import main
from rlm_env.evals.evaluate import Evaluation
from rlm_env.runs.errors import RunStopped
from tests.word_count import lines

pytestmark = pytest.mark.usefixtures("bare_repls")
LONG = {"lengths": [200]}
"""Contexts that overflow the scaffold `standard`: rlm is right alone in every task."""
SHORT = {"lengths": [20]}
"""Contexts on which both are right: never anything to decide."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)


@pytest.fixture
def options(workplace, endpoint):
    where = {"model": "stub", "base_url": endpoint.url, "out": "out", "progress": False, "baselines": False}
    return where | {"concurrency": 4, "until": "rlm>standard", "options": LONG}


def flags(endpoint, *more: str) -> list[str]:
    where = ["--model", "stub", "--base-url", endpoint.url, "--out", "out", "--set", "options.lengths=[200]"]
    return ["eval", "word-count", *where, *more]


def summary(folder: str = "out") -> dict:
    return json.loads(Path(folder, "summary.json").read_text())


def test_a_run_stops_once_its_test_has_decided(workplace, endpoint, capfd):
    asked = ["-n", "40", "--concurrency", "4", "--until", "rlm>standard"]
    assert main(flags(endpoint, *asked)) == 0
    out = capfd.readouterr().out
    stopping = summary()["stopping"]
    [verdict] = stopping["verdicts"]
    assert (summary()["status"], stopping["decided"], verdict["decision"]) == ("decided", True, ">")
    assert verdict["e_greater"] >= 40
    assert verdict["difference"]["low"] > 0
    begun = {record["task_id"] for record in lines(Path("out/rollouts.jsonl"))}
    assert stopping["begun"] == len(begun)
    assert verdict["tasks"] <= len(begun) <= verdict["tasks"] + 4
    assert stopping["saved"] == 40 - len(begun) > 20
    assert summary()["baselines_over"] == len(begun)
    record = tomllib.loads(Path("out/config.toml").read_text())["record"]["stopping"]
    assert (record["decided"], record["tasks"], record["level"]) == (["rlm>standard"], verdict["tasks"], 0.05)
    assert record["e_values"] == [verdict["e_greater"]]
    told = " ".join(out.split())
    assert f"Stopped by its test after {len(begun)} of 40 tasks ({40 - len(begun)} saved): rlm>standard" in told
    assert f"decided on the first {verdict['tasks']}." in told
    assert "arXiv:2010.09686" in told
    assert "McNemar" not in told
    assert summary()["comparisons"][0]["difference"]["low"] > 0
    assert main(["report", "out"]) == 0
    assert capfd.readouterr().out == out
    asked_before = len(endpoint.requests)
    assert main(flags(endpoint, *asked, "--resume")) == 0
    assert (capfd.readouterr().out, len(endpoint.requests)) == (out, asked_before)
    assert summary()["stopping"] == stopping
    assert main(["score", "out"]) == 0
    assert summary()["stopping"] == stopping


@pytest.mark.slow
async def test_a_run_that_was_killed_goes_on_to_the_same_decision(options, endpoint):
    endpoint.before_reply = lambda count: endpoint.die() if count == 8 else None
    with pytest.raises(RunStopped):
        await rlm_env.evaluate("word-count", n=30, **options)
    assert summary()["stopping"]["decided"] is False
    endpoint.before_reply = lambda count: None
    endpoint.restart()
    result = await rlm_env.evaluate("word-count", n=30, resume=True, **options)
    whole = await rlm_env.evaluate("word-count", n=30, **{**options, "out": "whole"})
    ours, theirs = (one.summaries["word-count"].stopping for one in (result, whole))
    assert result.status == whole.status == "decided"
    assert ours.verdicts == theirs.verdicts
    assert Evaluation.load("out").summaries["word-count"].stopping == ours


async def test_a_run_without_a_difference_uses_all_tasks_and_may_go_on_with_more(options):
    result = await rlm_env.evaluate("word-count", n=5, **options | {"options": SHORT})
    stopping = result.summaries["word-count"].stopping
    assert (result.status, stopping.decided, stopping.saved) == ("complete", False, 0)
    assert "The test has not decided (rlm>standard undecided) after 5 of 5 tasks." in result.to_markdown()
    more = await rlm_env.evaluate("word-count", n=7, resume=True, **options | {"options": SHORT})
    assert more.summaries["word-count"].stopping.verdicts[0].tasks == 7


async def test_a_scaffold_that_is_not_compared_gets_the_tasks_that_were_counted(options):
    await rlm_env.evaluate("word-count", n=30, **options)
    more = options | {"scaffolds": "standard,rlm,rlm-nosub"}
    result = await rlm_env.evaluate("word-count", n=30, resume=True, **more)
    tasks = {one.scaffold: one.tasks for one in result.summaries["word-count"].scaffolds}
    assert tasks["rlm-nosub"] == result.summaries["word-count"].stopping.verdicts[0].tasks


def test_a_limit_of_cost_ends_a_run_whose_test_waits(workplace, endpoint, capfd):
    Path("prices.toml").write_text('["stub"]\nprompt = 1000.0\ncompletion = 0.0\n')
    asked = ["-n", "40", "--concurrency", "3", "--until", "rlm>standard", "--prices", "prices.toml", "--no-baselines"]
    assert main(flags(endpoint, *asked, "--max-cost", "1")) == 4
    assert summary()["status"] == "stopped by max-cost"
    assert summary()["stopping"]["decided"] is False
    assert main(flags(endpoint, *asked, "--resume")) == 0
    assert summary()["status"] == "decided"


def test_environments_of_a_file_share_the_level(workplace, endpoint, capfd):
    Path("two.toml").write_text(
        f'model = "stub"\nbase_url = "{endpoint.url}"\nout = "out"\nn = 30\nuntil = ["rlm>standard"]\n'
        'baselines = false\nconcurrency = 4\n[[environments]]\nname = "word-count"\nlabel = "long"\n'
        "options = { lengths = [200] }\n"
        '[[environments]]\nname = "word-count"\nlabel = "short"\noptions = { lengths = [20] }\nn = 3\n'
    )
    assert main(["eval", "two.toml"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    long, short = (summary(f"out/{label}") for label in ("long", "short"))
    assert (summary()["status"], long["status"], short["status"]) == ("complete", "decided", "complete")
    assert long["stopping"]["level"] == short["stopping"]["level"] == 0.025
    assert long["stopping"]["verdicts"][0]["e_greater"] >= 80
    assert "long: Stopped by its test" in out
    assert "short: The test has not decided" in out
    assert long["comparisons"][0]["mcnemar"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--until", "rlm"], "until: 'rlm' is no comparison of two scaffolds; write it in quotes, as 'rlm>standard'"),
        (["--until", "rml>standard"], "until: unknown scaffold 'rml'; did you mean 'rlm'"),
        (["--until", "rlm-tips>standard"], "until: rlm-tips is not in scaffolds (standard, rlm)"),
        (["--set", "until_level=0"], "until_level"),
    ],
)
def test_mistakes_are_found_before_anything_is_paid(workplace, endpoint, capfd, more, message):
    assert main(flags(endpoint, *more)) == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert endpoint.requests == []


async def test_a_test_is_not_changed_after_a_look(options):
    from rlm_env.runs.errors import ConfigError

    await rlm_env.evaluate("word-count", n=3, **options | {"options": SHORT})
    changed = options | {"options": SHORT, "resume": True, "n": 3}
    for key, message in (
        ("until", r"until was \['rlm>standard'\], is now None"),
        ("until_level", "until_level was 0.05"),
    ):
        with pytest.raises(ConfigError, match=message):
            await rlm_env.evaluate("word-count", **changed | {key: () if key == "until" else 0.2})
    with pytest.raises(ConfigError, match=r"repeats was 1, is now 2 \(with until it stays as it was\)"):
        await rlm_env.evaluate("word-count", repeats=2, **changed)
