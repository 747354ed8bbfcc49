"""`rlm-env eval` with engines of its own for sub-LLM and judge, and endpoints that refuse."""

import json
import tomllib
from pathlib import Path

import pytest
from aiohttp import web

from rlm_env.cli import main
from tests.word_count import BARE_REPLS, lines


@pytest.fixture
def evaluate(workplace, endpoint, capfd, monkeypatch):
    """Runs `rlm-env eval word-count` with the root LLM at `endpoint`; returns exit code, stdout, stderr."""
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)
    monkeypatch.setenv("RLM_ENV_TEST_ROOT", "root-key")
    monkeypatch.setenv("RLM_ENV_TEST_SUB", "sub-key")

    def call(*arguments: str) -> tuple[int, str, str]:
        where = ["--model", "big", "--base-url", endpoint.url, "--api-key-env", "RLM_ENV_TEST_ROOT", "--out", "out"]
        code = main(["eval", "word-count", *where, "-n", "2", "--scaffolds", "rlm", *BARE_REPLS, *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def summary() -> dict:
    return json.loads(Path("out/summary.json").read_text())


def test_root_and_sub_llm_at_two_endpoints(evaluate, endpoint, other_endpoint):
    code, out, err = evaluate("--sub-model", "small", "--sub-base-url", other_endpoint.url)
    assert code == 0, err
    assert {request["model"] for request in endpoint.requests} == {"big"}
    assert {request["model"] for request in other_endpoint.requests} == {"small"}
    assert set(endpoint.keys) == {"Bearer root-key"}
    assert set(other_endpoint.keys) == {None}
    assert "big, sub-LLM small" in out
    record = tomllib.loads(Path("out/config.toml").read_text())["record"]
    assert record["models"]["sub"]["base_url"] == other_endpoint.url
    assert record["engines"]["sub"]["model"] == "small"
    evaluate(
        "--sub-model",
        "small",
        "--sub-base-url",
        other_endpoint.url,
        "--sub-api-key-env",
        "RLM_ENV_TEST_SUB",
        "--resume",
        "-n",
        "3",
    )
    assert other_endpoint.keys[-1] == "Bearer sub-key"


def test_a_judge_has_its_own_engine_and_its_cost_is_counted(evaluate, endpoint, other_endpoint):
    Path("prices.toml").write_text(
        '["big"]\nprompt = 0.0\ncompletion = 0.0\n["referee"]\nprompt = 1000.0\ncompletion = 0.0\n'
    )
    arguments = ("--judge-model", "referee", "--judge-base-url", other_endpoint.url, "--prices", "prices.toml")
    code, _, err = evaluate(*arguments)
    assert code == 0, err
    asked = [request["messages"][0]["content"] for request in other_endpoint.requests]
    assert sum(text.startswith("Judge: ") for text in asked) == len(asked) == 2 + 2  # two of the try beforehand
    assert not any("Judge: " in str(request["messages"]) for request in endpoint.requests)
    assert summary()["scaffolds"][0]["score"]["mean"] == 1.0
    assert summary()["side_costs_usd"]["judge"] == summary()["spent_usd"] > 0.01
    spent = summary()["spent_usd"]
    assert evaluate(*arguments, "--resume")[0] == 0
    assert summary()["spent_usd"] == pytest.approx(spent)


def test_a_judge_in_the_options_of_the_environment_is_counted_too(evaluate, endpoint, other_endpoint, capfd):
    free = "prompt = 0.0\ncompletion = 0.0\n"
    Path("prices.toml").write_text(f'["big"]\n{free}')
    judge = ("--set", "options.judge.model=referee", "--set", f"options.judge.base_url={other_endpoint.url}")
    code, _, err = evaluate(*judge, "--prices", "prices.toml")
    assert code == 2
    assert 'no entry for "referee"' in err
    Path("prices.toml").write_text(f'["big"]\n{free}["referee"]\nprompt = 1000.0\ncompletion = 0.0\n')
    code, _, err = evaluate(*judge, "--prices", "prices.toml")
    assert code == 0, err
    assert {request["model"] for request in other_endpoint.requests} == {"referee"}
    spent = summary()["spent_usd"]
    assert summary()["side_costs_usd"]["judge"] == spent > 0.01
    assert summary()["scaffolds"][0]["score"]["mean"] == 1.0
    assert main(["score", "out", "--ask-judge"]) == 0, capfd.readouterr().err
    assert summary()["side_costs_usd"]["judge"] == pytest.approx(summary()["spent_usd"])
    assert summary()["spent_usd"] > 1.5 * spent


def test_stored_rollouts_are_scored_by_another_judge(evaluate, endpoint, other_endpoint, capfd):
    evaluate()
    asked = len(endpoint.requests)
    judge = ["--set", "judge_model=referee", "--set", f"judge_base_url={other_endpoint.url}"]
    assert main(["score", "out", *judge]) == 0, capfd.readouterr().err
    assert len(endpoint.requests) == asked
    assert {request["model"] for request in other_endpoint.requests} == {"referee"}
    assert all("judged" in record["info"] for record in lines(Path("out/rollouts.jsonl")))


@pytest.mark.slow
def test_a_sub_llm_that_refuses_each_call_ends_the_run(evaluate, endpoint, other_endpoint):
    other_endpoint.broken = True
    code, _, err = evaluate("--sub-model", "nosuch", "--sub-base-url", other_endpoint.url, "-n", "40")
    assert code == 3
    assert "this model is out of order" in err
    assert len(lines(Path("out/rollouts.jsonl"))) < 30
    assert summary()["scaffolds"][0]["score"] is None
    other_endpoint.broken = False
    code, _, err = evaluate("--sub-model", "nosuch", "--sub-base-url", other_endpoint.url, "-n", "40", "--resume")
    assert code == 0, err
    assert summary()["scaffolds"][0]["scored"] == 40


def test_a_missing_key_of_the_sub_llm_is_found_at_once(evaluate, endpoint, other_endpoint):
    arguments = ("--sub-model", "small", "--sub-base-url", other_endpoint.url, "--sub-api-key-env", "RLM_ENV_NO_KEY")
    code, _, err = evaluate(*arguments)
    assert code == 2
    assert "RLM_ENV_NO_KEY is not set" in err
    assert endpoint.requests == []


def test_what_an_endpoint_refuses_is_left_out_recorded_and_told(evaluate, endpoint):
    def refuse(body: dict) -> web.Response | None:
        if "temperature" not in body:
            return None
        said = "Unsupported parameter: 'temperature' is not supported with this model."
        error = {"message": said, "type": "invalid_request_error", "param": "temperature"}
        return web.json_response({"error": error}, status=400)

    endpoint.answer = refuse
    code, out, err = evaluate("--set", "rollout.root.temperature=0.5")
    assert code == 0, err
    record = tomllib.loads(Path("out/config.toml").read_text())["record"]
    assert any("temperature" in sentence for sentence in record["engines"]["root"]["adaptations"])
    assert "root and sub LLM big, adapted to its endpoint:" in " ".join(out.split())
    assert main(["report", "out"]) == 0


def test_a_wrong_key_is_found_by_the_first_small_question(evaluate, endpoint):
    endpoint.answer = lambda body: web.json_response({"error": {"message": "Incorrect API key"}}, status=401)
    code, _, err = evaluate("-n", "50")
    assert code == 3
    assert "Nothing else was asked." in err
    assert len(endpoint.requests) == 1
    assert lines(Path("out/rollouts.jsonl")) == []
