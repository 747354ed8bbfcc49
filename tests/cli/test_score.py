"""`rlm-env score`, and what a mistake in a scorer costs: nothing is sampled twice."""

import json
import time
import tomllib
from pathlib import Path

import pytest

from rlm_env.cli import main
from tests.word_count import BARE_REPLS, lines


@pytest.fixture
def run(workplace, endpoint, capfd, monkeypatch):
    """Runs a command of `rlm-env`; returns exit code, stdout, stderr."""
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)

    def call(command: str, *arguments: str) -> tuple[int, str, str]:
        code = main([command, *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def flaw(workplace) -> Path:
    """While this file is there, the scorer fails on every task but the first."""
    path = workplace / "flaw"
    path.touch()
    return path


@pytest.fixture
def evaluate(run, endpoint, workplace):
    def call(*arguments: str) -> tuple[int, str, str]:
        where = ["--model", "stub", "--base-url", endpoint.url, "--out", "out", "-n", "3", "--scaffolds", "rlm"]
        return run("eval", "word-count", *where, *BARE_REPLS, *arguments)

    return call


def summary(folder: str = "out") -> dict:
    return json.loads(Path(folder, "summary.json").read_text())


def scores(folder: str = "out") -> list[float | None]:
    return [record["score"] and record["score"]["value"] for record in lines(Path(folder, "rollouts.jsonl"))]


def test_resume_scores_what_is_stored_instead_of_sampling_again(evaluate, endpoint, flaw):
    setting = ("--set", f"options.flaw={flaw}")
    code, out, err = evaluate(*setting)
    assert code == 0, err
    assert summary()["scaffolds"][0]["unscored"] == 2
    assert "KeyError: 'missing key' (rlm_env_test_word_count.py, line " in " ".join(out.split())
    assert "Their answers are kept" in " ".join(out.split())
    records = lines(Path("out/rollouts.jsonl"))
    failed = next(record for record in records if record["score"] is None)
    assert failed["answer"]
    assert 'raise KeyError("missing key")' in failed["info"]["traceback"]
    asked = len(endpoint.requests)
    flaw.unlink()
    code, _, err = evaluate(*setting, "--resume")
    assert code == 0, err
    assert len(endpoint.requests) == asked
    assert scores() == [1.0, 1.0, 1.0]
    assert summary()["scaffolds"][0]["errors"] == {}
    assert not Path("out/scores.jsonl").exists()


@pytest.mark.parametrize("command", ["eval --resume", "score --missing"])
def test_baselines_that_failed_with_the_scorer_are_measured_when_it_is_mended(run, evaluate, flaw, command):
    def tasks_measured() -> set[int]:
        return {baseline["score"]["tasks"] for baseline in summary()["baselines"]}

    setting = ("--set", f"options.flaw={flaw}")
    evaluate(*setting)
    assert tasks_measured() == {1}
    flaw.unlink()
    code, _, err = evaluate(*setting, "--resume") if command == "eval --resume" else run("score", "out", "--missing")
    assert code == 0, err
    assert tasks_measured() == {3}
    assert scores() == [1.0, 1.0, 1.0]


def test_a_stored_metric_that_is_no_number_breaks_no_report_and_is_scored_again(run, evaluate, endpoint):
    evaluate()
    records = lines(Path("out/rollouts.jsonl"))
    records[1]["score"]["metrics"] = {"a": "x"}
    Path("out/rollouts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code, out, err = run("report", "out")
    assert code == 0, err
    assert "Score.metrics['a'] must be a finite number" in " ".join(out.split())
    asked = len(endpoint.requests)
    code, _, err = run("score", "out", "--missing")
    assert code == 0, err
    assert (scores(), len(endpoint.requests)) == ([1.0, 1.0, 1.0], asked)


def test_a_scorer_that_still_fails_costs_no_sampling_either(evaluate, endpoint, flaw):
    setting = ("--set", f"options.flaw={flaw}")
    evaluate(*setting)
    asked = len(endpoint.requests)
    assert evaluate(*setting, "--resume")[0] == 0
    assert len(endpoint.requests) == asked
    assert len(lines(Path("out/rollouts.jsonl"))) == 3


def test_a_scorer_that_fails_at_once_is_found_before_anything_is_paid(evaluate, endpoint):
    code, _, err = evaluate("--set", "options.spoilt='-0'")
    assert code == 2
    assert "cannot score the right answer to its first task (eval-0): ZeroDivisionError: a scorer with a defect" in err
    assert "in score)" in err
    assert "Traceback" not in err
    assert endpoint.requests == []


def test_stored_answers_are_scored_again_with_other_options(run, evaluate, endpoint, workplace):
    log = workplace / "judge"
    evaluate("--set", f"options.judge={log}")
    asked, judged = len(endpoint.requests), len(log.read_text().splitlines())
    assert judged == 3 + 2  # the two of the try at the beginning
    assert summary()["scaffolds"][0]["metrics"] == {"bonus": 0.0}
    code, out, err = run("score", "out", "--set", "options.bonus=0.25", "--out", "other")
    assert code == 0, err
    assert "metric bonus" in out
    assert summary("other")["scaffolds"][0]["metrics"] == {"bonus": 0.25}
    assert summary("out")["scaffolds"][0]["metrics"] == {"bonus": 0.0}
    results = lines(Path("other/results.jsonl"))
    assert {result["metrics.bonus"] for result in results} == {0.25}
    assert len(endpoint.requests) == asked
    assert len(log.read_text().splitlines()) == judged + 2  # verdicts are stored and used again
    code, _, _ = run("score", "other", "--ask-judge")
    assert len(log.read_text().splitlines()) == judged + 2 + 2 + 3
    config = tomllib.loads(Path("other/config.toml").read_text())
    assert config["options"]["bonus"] == 0.25
    assert len(config["record"]["scored"]) == 2
    assert main(["report", "other"]) == 0


def test_an_interrupted_scoring_goes_on(run, evaluate, monkeypatch):
    evaluate()
    from rlm_env.evals import rescoring

    whole, calls = rescoring.grade, []

    async def once(*arguments, **options):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return await whole(*arguments, **options)

    monkeypatch.setattr(rescoring, "grade", once)
    before = Path("out/rollouts.jsonl").read_text()
    code, _, err = run("score", "out", "--set", "concurrency=1", "--set", "options.bonus=1")
    assert code == 130
    assert "rlm-env score out --set concurrency=1 --set options.bonus=1" in err
    assert Path("out/rollouts.jsonl").read_text() == before
    monkeypatch.setattr(rescoring, "grade", whole)
    scored: list[int] = []

    async def counted(*arguments, **options):
        scored.append(1)
        return await whole(*arguments, **options)

    monkeypatch.setattr(rescoring, "grade", counted)
    code, _, err = run("score", "out", "--set", "concurrency=1", "--set", "options.bonus=1")
    assert code == 0, err
    assert len(scored) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "options.lengths=[30]"), "makes other tasks than those that were sampled"),
        (("--set", "model=other"), "model was 'stub', is now 'other'"),
        (("--set", "options.bonos=1"), "bonos"),
    ],
)
def test_only_the_scoring_can_change(run, evaluate, arguments, said):
    evaluate()
    before = Path("out/rollouts.jsonl").read_text(), Path("out/config.toml").read_text()
    code, _, err = run("score", "out", *arguments)
    assert code == 2
    assert said in err
    assert (Path("out/rollouts.jsonl").read_text(), Path("out/config.toml").read_text()) == before


def test_a_folder_without_a_run(run, workplace):
    code, _, err = run("score", "nowhere")
    assert code == 2
    assert "holds no run" in err


def test_several_environments_are_scored_together(run, endpoint, workplace):
    environments = "".join(f'[[environments]]\nname = "word-count"\nlabel = "{label}"\nn = 2\n' for label in "ab")
    Path("two.toml").write_text(
        f'model = "stub"\nbase_url = "{endpoint.url}"\nout = "out"\nscaffolds = ["rlm"]\n{environments}'
    )
    assert run("eval", "two.toml")[0] == 0
    asked = len(endpoint.requests)
    code, out, err = run("score", "out", "--set", "options.spoilt=metrics")
    assert code == 0, err
    assert "mean of environments" in out
    assert len(endpoint.requests) == asked
    assert summary()["environments"]["b"]["scaffolds"][0]["metrics"]["reward"] == 0.25


@pytest.mark.slow
def test_baselines_can_be_left_out_and_end_in_time(evaluate):
    evaluate("--no-baselines")
    assert summary()["baselines"] == []
    start = time.monotonic()
    limits = ("--set", "baseline_seconds=1", "--set", "options.slow=0.5")
    code, out, err = evaluate(*limits, "--out", "slow")
    assert code == 0, err
    assert time.monotonic() - start < 20
    assert "The baselines are over part of the tasks" in " ".join(out.split())
    assert summary("slow")["baselines_over"] == 0
