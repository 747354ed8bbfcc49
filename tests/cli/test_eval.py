"""`rlm-env eval` and `rlm-env report`, end to end, on an endpoint in a thread."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from rlm_env.cli import main
from tests.word_count import BARE_REPLS, lines


@pytest.fixture
def run(workplace, endpoint, capfd, monkeypatch):
    """Runs `rlm-env eval word-count` on the endpoint; returns exit code, stdout, stderr."""
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)

    def call(*arguments: str, target: str = "word-count", model: bool = True) -> tuple[int, str, str]:
        where = ["--model", "stub", "--base-url", endpoint.url, "--out", "out", *BARE_REPLS] if model else []
        code = main(["eval", target, *where, *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def records(folder: str = "out") -> list[dict]:
    return lines(Path(folder, "rollouts.jsonl"))


def summary() -> dict:
    return json.loads(Path("out/summary.json").read_text())


def test_an_eval_scores_both_scaffolds_on_the_same_tasks(run):
    code, out, err = run("-n", "4", "-r", "2")
    assert code == 0, err
    keys = {(record["scaffold"], record["task_id"], record["info"]["repeat"]) for record in records()}
    assert len(records()) == len(keys) == 16
    assert {key[1:] for key in keys if key[0] == "rlm"} == {key[1:] for key in keys if key[0] == "standard"}
    standard, rlm = summary()["scaffolds"]
    assert summary()["status"] == "complete"
    assert (len(standard["sandboxes"]), len(rlm["sandboxes"])) == (0, 1)
    assert {name: count for name, count in standard["outcomes"].items() if count} == {"answered": 4, "overflow": 4}
    assert standard["score"]["mean"] == 0.5
    assert standard["needed_prompt"] >= 200
    assert {name: count for name, count in rlm["outcomes"].items() if count} == {"answered": 8}
    assert rlm["score"]["mean"] == 1.0
    assert rlm["sub_calls"] == 1.0
    assert rlm["sub_completion_tokens"] > 0
    for text in ("score [95 % interval]", "rollouts: overflow", "4 (up to", "pass@2", "majority vote", "root LLM"):
        assert text in out
    assert "By context length" in out


def test_a_data_frame_of_results_has_the_names_that_dashboards_know(run):
    run("-n", "2")
    results = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert len(results) == 4
    rlm = next(result for result in results if result["scaffold"] == "rlm")
    assert (rlm["reward"], rlm["outcome"]) == (1.0, "answered")
    assert rlm["sub_llm_call_count"] == rlm["sub_llm_batch_count"] == 1
    assert rlm["repl_call_count"] == rlm["main_rlm_turns"] == 1
    assert rlm["main_rlm_prompt_tokens"] > 0
    assert summary()["scaffolds"][1]["usage"]["sub_llm_call_count"] == 1


def test_baselines_are_measured_on_the_same_tasks(run, capfd):
    _, out, _ = run("-n", "6")
    baselines = {baseline["name"]: baseline["score"]["mean"] for baseline in summary()["baselines"]}
    assert set(baselines) == {"no context", "random", "majority", "label dump", "prompt injection", "always seven"}
    assert max(baselines.values()) < 1.0
    assert "Baselines on the same tasks" in out
    assert main(["report", "out"]) == 0
    assert "prompt injection" in capfd.readouterr().out
    before = summary()
    run("-n", "6", "--resume")
    assert summary() == before
    run("-n", "7", "--resume")
    assert summary()["baselines_over"] == 7


def test_a_scorers_metrics_do_not_replace_what_every_result_has(run):
    run("-n", "1", "--scaffolds", "rlm", "--set", "options.spoilt=metrics")
    [result] = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert (result["reward"], result["error"], result["outcome"]) == (1.0, None, "answered")
    assert {key: value for key, value in result.items() if key.startswith("metrics.")} == {
        "metrics.reward": 0.25,
        "metrics.error": 1.0,
        "metrics.outcome": 7,
    }


def test_the_record_tells_the_engine_and_its_version(run, endpoint):
    endpoint.version = "0.30.1"
    run("-n", "1", "--scaffolds", "standard")
    record = tomllib.loads(Path("out/config.toml").read_text())["record"]
    assert record["engines"]["root"]["engine_version"] == "0.30.1"
    assert record["engines"]["root"] == record["engines"]["sub"]
    assert endpoint.url not in str(record["engines"])
    endpoint.version = "0.31.0"
    _, _, err = run("-n", "2", "--scaffolds", "standard", "--resume")
    assert "root engine: engine_version was 0.30.1 when the run began, is now 0.31.0" in err
    again = tomllib.loads(Path("out/config.toml").read_text())["record"]
    assert again["engines"]["root"]["engine_version"] == "0.31.0"
    assert again["started"] == record["started"]


def test_a_file_of_one_environment_is_an_ordinary_run(run, endpoint):
    Path("one.toml").write_text(
        f'model = "stub"\nbase_url = "{endpoint.url}"\nout = "out"\n[[environments]]\nname = "word-count"\n'
        "options = { lengths = [20] }\nrollout = { rlm.max_turns = 3 }\nn = 2\n"
    )
    code, out, err = run(target="one.toml", model=False)
    assert code == 0, err
    assert len(records()) == 4
    assert "By context length" in out
    stored = tomllib.loads(Path("out/config.toml").read_text())
    assert (stored["n"], stored["options"], stored["rollout"]) == (2, {"lengths": [20]}, {"rlm": {"max_turns": 3}})
    code, _, err = run("--set", "options.lengths=[30]", "--out", "other", target="out/config.toml", model=False)
    assert code == 0, err
    assert {record["info"]["task"]["length_tokens"] for record in records("other")} == {30}


def test_unequal_settings_are_told(run):
    _, out, _ = run("-n", "1", "--set", "rollout.rlm.max_turns=3", "--set", "rollout.standard.root.max_tokens=9")
    assert "Not on equal terms: max_turns is not equal in all scaffolds: standard 30, rlm 3." in " ".join(out.split())
    assert "max_tokens 9" in out
    _, out, _ = run("-n", "1", "--out", "equal")
    assert "Not on equal terms" not in out


def test_the_config_that_is_stored_makes_the_same_run_again(run, endpoint):
    run(
        "-n",
        "2",
        "--scaffolds",
        "rlm",
        "--set",
        "options.lengths=10,20",
        "--set",
        "rollout.max_turns=3",
        "--seed",
        "5",
    )
    stored = tomllib.loads(Path("out/config.toml").read_text())
    assert stored["options"] == {"lengths": [10, 20]}
    assert stored["record"]["scaffolds"]["rlm"]["config"]["max_turns"] == 3
    assert stored["record"]["versions"]["python"].startswith("3.")
    assert len(stored["record"]["tasks_sha256"]) == 64
    assert "prompt_sha256" in stored["record"]["scaffolds"]["rlm"]
    code, _, err = run("--out", "again", target="out/config.toml", model=False)
    assert code == 0, err
    again = tomllib.loads(Path("again/config.toml").read_text())
    assert again["record"]["tasks_sha256"] == stored["record"]["tasks_sha256"]
    assert {r["id"]: r["messages"] for r in records("again")} == {r["id"]: r["messages"] for r in records()}


def test_a_run_is_resumed_by_its_config_from_anywhere(run, workplace, monkeypatch):
    run("-n", "2")
    (workplace / "elsewhere").mkdir()
    (workplace / "elsewhere" / "environments").symlink_to(workplace / "environments")
    monkeypatch.chdir(workplace / "elsewhere")
    code, _, err = run("--resume", "-n", "3", target="../out/config.toml", model=False)
    assert code == 0, err
    assert len(records("../out")) == 6


def test_a_folder_with_a_run_is_refused_and_a_finished_run_costs_nothing_to_resume(run, endpoint):
    run("-n", "2")
    asked = len(endpoint.requests)
    code, _, err = run("-n", "2")
    assert code == 2
    assert "--resume" in err
    code, out, _ = run("-n", "2", "--resume")
    assert code == 0
    assert "score" in out
    assert len(endpoint.requests) == asked
    assert len(records()) == 4


def test_resume_repeats_only_what_is_missing_or_cut_or_failed(run, endpoint):
    run("-n", "3", "-r", "2")
    path = Path("out/rollouts.jsonl")
    stored = path.read_text().splitlines(keepends=True)
    failed = json.loads(stored[3]) | {"stop_reason": "error", "error": "LLMError: out of luck", "score": None}
    path.write_text("".join(stored[:3]) + json.dumps(failed) + "\n" + stored[4][:50])
    code, _, err = run("-n", "3", "-r", "2", "--resume")
    assert code == 0, err
    whole = records()
    assert len(whole) == 4 + (12 - 3)
    assert len({(r["scaffold"], r["task_id"], r["info"]["repeat"]) for r in whole}) == 12
    assert summary()["rollouts_stored"] == 12
    assert sum(scaffold["outcomes"]["error"] for scaffold in summary()["scaffolds"]) == 0


def test_resume_with_more_tasks_goes_on_and_with_others_is_refused(run):
    run("-n", "2")
    code, _, err = run("-n", "2", "--seed", "1", "--resume")
    assert code == 2
    assert "seed was 0, is now 1" in err
    code, _, err = run("-n", "3", "-r", "2", "--resume")
    assert code == 0, err
    assert len(records()) == 12


def test_other_tasks_under_the_same_config_are_refused(run, workplace):
    run("-n", "2")
    config = Path("out/config.toml")
    digest = tomllib.loads(config.read_text())["record"]["tasks_sha256"]
    config.write_text(config.read_text().replace(digest, "0" * 64))
    code, _, err = run("-n", "2", "--resume")
    assert code == 2
    assert "tasks are not the same" in err


def test_an_engine_that_fails_is_an_error_and_never_a_zero(run, endpoint):
    endpoint.broken = True
    code, out, _ = run("-n", "2", "--scaffolds", "standard")
    assert code == 1
    [standard] = summary()["scaffolds"]
    assert standard["outcomes"]["error"] == 2
    assert standard["score"] is None
    assert "out of order" in out
    endpoint.broken = False
    code, _, _ = run("-n", "2", "--scaffolds", "standard", "--resume")
    assert code == 0
    assert summary()["scaffolds"][0]["scored"] == 2


def test_a_scorer_with_a_defect_costs_its_rollouts_and_not_the_run(run):
    code, out, _ = run("-n", "4", "--set", "options.spoilt='-1'", "--scaffolds", "rlm")
    assert code == 0
    [rlm] = summary()["scaffolds"]
    assert rlm["outcomes"]["error"] == 1
    assert rlm["scored"] == 3
    assert "ZeroDivisionError: a scorer with a defect" in out


def test_an_engine_that_dies_stops_the_run_which_can_be_resumed(run, endpoint):
    def die(count: int) -> None:
        if count == 5:
            endpoint._loop.create_task(endpoint._runner.cleanup())

    endpoint.before_reply = die
    code, _, err = run("-n", "20", "--scaffolds", "standard", "--concurrency", "1")
    assert code == 3
    assert "rlm-env eval out/config.toml --resume" in err
    assert 0 < len(records()) < 20
    assert summary()["status"] == "engine unavailable"
    assert all(record["stop_reason"] != "error" for record in records())


def test_max_cost_stops_and_says_so(run):
    Path("prices.toml").write_text('["stub"]\nprompt = 1000.0\ncompletion = 1000.0\n')
    arguments = ("-n", "50", "--concurrency", "2", "--scaffolds", "standard", "--prices", "prices.toml")
    code, out, err = run(*arguments, "--max-cost", "0.2")
    assert code == 4
    assert "stopped by max-cost" in err
    assert summary()["status"] == "stopped by max-cost"
    made = len(records())
    assert 0 < made < 50
    assert 0.2 <= summary()["spent_usd"] < 0.5
    assert "cost, US$" in out
    code, _, _ = run(*arguments, "--max-cost", "1000", "--resume")
    assert code == 0
    assert len(records()) == 50


def test_max_cost_without_a_price_for_the_model(run):
    Path("prices.toml").write_text('["stubb"]\nprompt = 1.0\ncompletion = 1.0\n')
    code, _, err = run("--prices", "prices.toml", "--max-cost", "1")
    assert code == 2
    assert 'no entry for "stub"' in err


def test_what_an_endpoint_does_not_tell_the_tokens_of_has_an_unknown_cost(run, endpoint):
    Path("prices.toml").write_text('["stub"]\nprompt = 1.0\ncompletion = 1.0\n')
    endpoint.untold = lambda body: True
    arguments = ("-n", "2", "--prices", "prices.toml")
    code, _, err = run(*arguments, "--max-cost", "1")
    assert code == 2
    assert "max_cost cannot hold: replies (preflight) do not tell how many tokens they took" in err
    assert len(endpoint.requests) == 1, "found before anything else is paid"
    code, out, _ = run(*arguments, "--resume")
    assert code == 0
    assert summary()["spent_usd"] is None
    assert [scaffold["cost"] for scaffold in summary()["scaffolds"]] == [None, None]
    assert "root and sub LLM stub, adapted to its endpoint: its replies do not tell how many tokens they took" in out


def test_a_report_from_disk_is_the_table_again(run, capfd):
    _, out, _ = run("-n", "2")
    assert main(["report", "out"]) == 0
    assert capfd.readouterr().out == out
    assert main(["report", "out", "--markdown"]) == 0
    markdown = capfd.readouterr().out
    assert "| score [95 % interval] |" in markdown
    assert "| ---: |" in markdown


def test_an_unfinished_run_can_be_reported(run, capfd):
    run("-n", "2")
    path = Path("out/rollouts.jsonl")
    path.write_text(path.read_text()[:-20])
    assert main(["report", "out"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "0"), "n: Input should be greater than or equal to 1, got 0"),
        (("-r", "0"), "repeats:"),
        (("--scaffolds", "rml"), "did you mean 'rlm'?"),
        (("--set", "rollout.max_turn=3"), "did you mean 'max_turns'"),
        (("--set", "rollout.max_turns=none"), "rollout: max_turns: Input should be a valid integer"),
        (("--set", "rollout.rlm.max_turn=3"), "unknown key 'rlm.max_turn'; did you mean 'max_turns'"),
        (("--set", "rollout.prompt=nowhere"), "nowhere"),
        (("--set", "option.lengths=3"), "unknown key 'option'; did you mean 'options'?"),
        (("--set", "options.length=3"), "length"),
        (("--set", "options.spoilt=context"), "Task.context must be str, bytes, list, dict or pathlib.Path, got int"),
        (("--set", "options.spoilt=ids"), "two tasks with the id 'same'"),
        (("--set", "options.spoilt=info"), "cannot be written as JSON"),
        (("--set", "options.spoilt=length"), "task eval-0: length_tokens in its info is no number of tokens: '4k'"),
        (("--api-key-env", "RLM_ENV_TEST_NO_SUCH_KEY"), "RLM_ENV_TEST_NO_SUCH_KEY"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(run, arguments, said):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not Path("out/rollouts.jsonl").exists() or not Path("out/rollouts.jsonl").read_text()


def test_an_unknown_model(workplace, capfd):
    assert main(["eval", "word-count", "--model", "tiny-rml"]) == 2
    assert "'tiny-rml' not found" in capfd.readouterr().err
    assert not Path("outputs").exists()


def test_an_unknown_environment_is_named_before_anything_else(workplace, capfd):
    assert main(["eval", "word-cuont"]) == 2
    err = capfd.readouterr().err
    assert "no environment 'word-cuont'; did you mean 'word-count'?" in err
    assert "rlm-env eval oolong-rlm --model tiny-rlm" in err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("command", ["eval", "check"])
def test_a_file_with_an_environment_is_told_what_to_do_with_it(workplace, capfd, command):
    Path("mine.py").write_text("")
    assert main([command, "mine.py"]) == 2
    err = " ".join(capfd.readouterr().err.split())
    assert "no environment 'mine.py'. An environment in a file of its own runs from Python" in err
    assert "rlm-env new NAME" in err


def test_a_missing_model_names_the_flag_and_an_example(workplace, capfd):
    assert main(["eval", "word-count"]) == 2
    assert "Add --model, for example: rlm-env eval oolong-rlm --model tiny-rlm" in capfd.readouterr().err


def test_nobody_at_the_endpoint(workplace, capfd, monkeypatch):
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)
    assert main(["eval", "word-count", "--model", "x", "--base-url", "http://127.0.0.1:9/v1", "-n", "1"]) == 3
    assert "127.0.0.1:9" in capfd.readouterr().err


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_finished(run, tmp_path):
    """On a real file system of 128 KiB."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    arguments = ("-n", "150", "--scaffolds", "rlm", "--set", "options.lengths=[200]", "--out", str(small / "out"))
    try:
        code, _, err = run(*arguments)
        assert code == 1
        assert "the disk is full" in err
        assert "--resume" in err
        assert (small / "out" / "rollouts.jsonl").read_bytes().endswith(b"\n")
        before = records(str(small / "out"))
        assert 5 < len(before) < 150
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        code, _, err = run(*arguments, "--resume")
        assert code == 0, err
        after = records(str(small / "out"))
        for old, new in zip(before, after, strict=False):  # one that was stored before it had a score has one now
            later = {} if old["score"] else {key: new[key] for key in ("score", "error", "info")}
            assert new == {**old, **later}
        assert all(record["score"] for record in after)
        assert len({record["task_id"] for record in after}) == len(after) == 150
    finally:
        subprocess.run(["umount", small], check=True)
