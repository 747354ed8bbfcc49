"""`--dry-run` and `--pilot` end to end, on an endpoint in a thread."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from rlm_env.cli import main
from tests.word_count import lines

pytestmark = pytest.mark.usefixtures("bare_repls")
PRICES = '["stub"]\nprompt = 1.0\ncompletion = 10.0\ntaken = 2026-01-31\nsource = "a leaflet"\n'
TOLD = "US$ per million tokens: stub 1 for prompts, 10 for completions (taken on 2026-01-31 from a leaflet)."


@pytest.fixture
def run(workplace, endpoint, capfd, monkeypatch):
    """Runs `rlm-env eval word-count --out out`; returns exit code, stdout in single blanks, stderr."""
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)

    def call(*more: str, target: str = "word-count") -> tuple[int, str, str]:
        where = ["--model", "stub", "--base-url", endpoint.url] if target == "word-count" else []
        code = main(["eval", target, *where, "--out", "out", *more])
        out, err = capfd.readouterr()
        return code, " ".join(out.split()), err

    return call


def test_a_dry_run_asks_nobody_and_writes_nothing(run, endpoint):
    code, out, err = run("-n", "10", "-r", "2", "--dry-run", "--until", "rlm>standard")
    assert code == 0, err
    assert endpoint.requests == []
    assert not Path("out").exists()
    assert "word-count, stub: 10 tasks x 2 rollouts" in out
    assert "all │ 40 │ 0 │ unknown │ unknown │ unknown │ unknown │ unknown" in out
    assert "nothing can be estimated: --pilot K pays for the first K tasks" in out
    assert "a decision (rlm>standard) may end the run before" in out


def test_only_an_engine_of_this_machine_costs_nothing(run, capfd):
    where = ["--out", "out", "-n", "2", "--scaffolds", "rlm", "--dry-run"]
    assert main(["eval", "word-count", "--model", "tiny-rlm", *where]) == 0
    assert "│ unknown │ 0 (local) │" in " ".join(capfd.readouterr().out.split())
    _, out, _ = run("-n", "2", "--scaffolds", "rlm", "--dry-run")
    assert "local" not in out


def test_a_judge_is_not_asked_by_a_dry_run(run, endpoint):
    code, out, err = run("-n", "4", "--dry-run", "--judge-model", "stub")
    assert code == 0, err
    assert endpoint.requests == []
    assert "Left out: what the environment's judge may cost" in out


def test_mistakes_are_found_by_a_dry_run(run, endpoint):
    code, _, err = run("--dry-run", "--set", "options.length=[20]")
    assert (code, endpoint.requests) == (2, [])
    assert "length" in err
    assert run("--pilot", "0")[0] == 2


def test_a_pilot_is_paid_once_and_the_eval_takes_it_over(run, endpoint, capfd):
    Path("prices.toml").write_text(PRICES)
    priced = ("--prices", "prices.toml")
    code, out, err = run("-n", "12", "-r", "2", "--pilot", "4", *priced)
    assert code == 0, err
    stored = lines(Path("out/rollouts.jsonl"))
    assert {(one["scaffold"], one["task_id"]) for one in stored} == {
        (scaffold, f"eval-{task}") for scaffold in ("standard", "rlm") for task in range(4)
    }
    assert len(stored) == 8
    assert json.loads(Path("out/summary.json").read_text())["status"] == "pilot"
    assert tomllib.loads(Path("out/config.toml").read_text())["record"]["pilot"] is True
    assert "From 8 rollouts in out, which are not paid again" in out
    assert "│ all │ 48 │ 8 │ " in out
    assert "│ unknown" not in out
    assert TOLD in out
    assert "the same command without --pilot and with --out out" in err
    assert main(["report", "out"]) == 0
    assert "out: a pilot; the eval itself has not begun." in capfd.readouterr().out
    asked = len(endpoint.requests)
    for free in (("--dry-run",), ("--pilot", "3"), ("--pilot", "4")):
        again = run("-n", "12", "-r", "2", *free, *priced)
        assert (again[0], again[1], len(endpoint.requests)) == (0, out, asked)

    code, _, err = run("-n", "12", "-r", "2", "--no-baselines", "--until", "rlm>standard", *priced)
    assert code == 0, err
    now = lines(Path("out/rollouts.jsonl"))
    assert now[:8] == stored
    assert len({(one["scaffold"], one["task_id"], one["info"]["repeat"]) for one in now}) == len(now)
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["status"] in ("complete", "decided")
    assert TOLD in summary["notes"]
    assert "pilot" not in tomllib.loads(Path("out/config.toml").read_text())["record"]
    code, _, err = run("-n", "12", "-r", "2", *priced)
    assert code == 2
    assert "already holds a run" in err
    assert run("-n", "12", "-r", "2", "--pilot", "5", *priced)[0] == 2


def test_the_estimate_is_what_the_eval_then_takes(run):
    """The endpoint answers alike on all tasks of a length, so that the estimate is nearly exact."""
    Path("prices.toml").write_text(PRICES)
    run("-n", "8", "--pilot", "2", "--prices", "prices.toml", "--markdown")
    _, out, _ = run("-n", "8", "--dry-run", "--prices", "prices.toml", "--markdown")
    row = next(line for line in out.split("| all ") if line.startswith("| 16 ")).split(" | ")
    run("-n", "8", "--no-baselines", "--prices", "prices.toml")
    scaffolds = json.loads(Path("out/summary.json").read_text())["scaffolds"]
    assert float(row[6].split()[0]) == pytest.approx(sum(one["cost"] for one in scaffolds), rel=0.1)
    tokens = sum((one["root_prompt_tokens"] + one["sub_prompt_tokens"]) * one["ran"] for one in scaffolds)
    assert float(row[3].split()[0].replace(",", "")) == pytest.approx(tokens, rel=0.05)


def test_lengths_that_a_pilot_does_not_see_are_told_before_it_is_paid(run):
    code, out, err = run("-n", "6", "--pilot", "1", "--scaffolds", "rlm")
    assert code == 0, err
    assert "note: word-count: --pilot 2 would see all context lengths, 1 does not" in err
    assert "Left out: 3 of 6 tasks, with contexts of about 200 tokens" in out


def test_a_pilot_that_fails_alike_is_told(run, endpoint):
    endpoint.broken = True
    code, out, _ = run("-n", "6", "--pilot", "2", "--scaffolds", "rlm")
    assert code == 1
    assert "Left out: 2 rollouts that failed" in out
    endpoint.broken = False
    assert run("-n", "6", "--pilot", "3", "--scaffolds", "rlm")[0] == 0
    assert len(lines(Path("out/rollouts.jsonl"))) == 5


def test_every_environment_of_a_file_has_its_pilot(run, endpoint):
    Path("two.toml").write_text(
        f'model = "stub"\nbase_url = "{endpoint.url}"\nn = 6\nscaffolds = ["rlm"]\nbaselines = false\n'
        '[[environments]]\nname = "word-count"\nlabel = "long"\noptions = { lengths = [200] }\n'
        '[[environments]]\nname = "word-count"\nlabel = "short"\noptions = { lengths = [20] }\nn = 3\n'
    )
    code, out, err = run("--pilot", "2", target="two.toml")
    assert code == 0, err
    assert [len(lines(Path(f"out/{label}/rollouts.jsonl"))) for label in ("long", "short")] == [2, 2]
    assert out.count("Estimate: word-count") == 2
    code, _, err = run(target="two.toml")
    assert code == 0, err
    assert [len(lines(Path(f"out/{label}/rollouts.jsonl"))) for label in ("long", "short")] == [6, 3]
    assert json.loads(Path("out/summary.json").read_text())["status"] == "complete"
