"""Several environments in one run, end to end on an endpoint in a thread."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from rlm_env.cli import main
from rlm_env.evals.config import EvalConfig, load_eval_config
from rlm_env.runs.errors import ConfigError
from tests.word_count import lines

MATRIX = """
model = "stub"
base_url = "{url}"
scaffolds = ["standard", "rlm", "rlm-nosub", "summary"]
n = 3
rollout = {{ repl = {{ preload = [] }} }}

[[environments]]
name = "word-count"
label = "short"
options = {{ lengths = [20] }}

[[environments]]
name = "word-count"
label = "long"
n = 2
options = {{ lengths = [200] }}
rollout = {{ rlm.max_turns = 3 }}
"""


@pytest.fixture
def run(workplace, endpoint, capfd, monkeypatch):
    """Runs the matrix; returns exit code, stdout, stderr."""
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)
    Path("matrix.toml").write_text(MATRIX.format(url=endpoint.url))

    def call(*arguments: str, target: str = "matrix.toml") -> tuple[int, str, str]:
        where = [] if "--out" in arguments or target != "matrix.toml" else ["--out", "out"]
        code = main(["eval", target, *where, *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def stored(label: str) -> list[dict]:
    return lines(Path("out", label, "rollouts.jsonl"))


def test_metrics_of_the_scorer_are_in_both_tables(run, capfd):
    metric = [
        "--set",
        "environments=[{name='word-count', label='short', options.spoilt='metrics'}, {name='word-count'}]",
    ]
    code, out, err = run(*metric, "--scaffolds", "rlm", "-n", "1")
    assert code == 0, err
    rows = [" ".join(line.strip(" │┃|").split()) for line in out.splitlines()]
    assert "metric reward │ 0.25" in [row.rstrip("│ ") for row in rows]
    assert main(["report", "out/short"]) == 0
    assert "metric reward" in capfd.readouterr().out


def test_a_matrix_is_a_run_for_each_environment_and_one_table(run, capfd):
    code, out, err = run()
    assert code == 0, err
    assert len(stored("short")) == 3 * 4
    assert len(stored("long")) == 2 * 4
    table = out.splitlines()
    header = next(line for line in table if "best baseline" in line)
    for name in ("standard", "rlm", "rlm-nosub", "summary", "best baseline"):
        assert name in header
    assert any(line.strip(" │┃|").startswith("short") and "1.00" in line for line in table)
    assert "2 overflow" in out
    assert "Not on equal terms (long): max_turns is not equal in all scaffolds:" in " ".join(out.split())
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["status"] == "complete"
    assert list(summary["environments"]) == ["short", "long"]
    assert summary["environments"]["long"]["scaffolds"][0]["outcomes"]["overflow"] == 2
    config = tomllib.loads(Path("out/config.toml").read_text())
    assert [entry["label"] for entry in config["environments"]] == ["short", "long"]
    assert main(["report", "out"]) == 0
    assert capfd.readouterr().out == out
    assert main(["report", "out/short"]) == 0
    assert "By context length" in capfd.readouterr().out
    assert main(["report", "out", "--markdown"]) == 0
    assert "| environment | standard | rlm |" in capfd.readouterr().out


@pytest.mark.slow
def test_a_matrix_that_was_stopped_goes_on_where_it_was(run, endpoint):
    def die(count: int) -> None:
        if count == 8:
            endpoint._loop.create_task(endpoint._runner.cleanup())

    endpoint.before_reply = die
    code, _, err = run("--concurrency", "1")
    assert code == 3
    assert "rlm-env eval out/config.toml --resume" in err
    before = stored("short")
    assert 0 < len(before) < 12
    assert stored("long") == []
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["status"] == "unfinished"
    assert summary["environments"]["long"]["status"] == "not begun"

    endpoint.before_reply = lambda count: None
    endpoint.restart()
    code, out, err = run("--resume", target="out/config.toml")
    assert code == 0, err
    assert stored("short")[: len(before)] == before
    assert len(stored("short")) == 12
    assert len(stored("long")) == 8
    asked = len(endpoint.requests)
    code, again, _ = run("--resume", target="out/config.toml")
    assert (code, again, len(endpoint.requests)) == (0, out, asked)


def test_mistakes_anywhere_are_found_before_anything_runs(run, endpoint):
    Path("matrix.toml").write_text(MATRIX.format(url=endpoint.url).replace("lengths = [200]", "length = [200]"))
    code, _, err = run()
    assert code == 2
    assert "length" in err
    assert endpoint.requests == []


def test_the_command_line_holds_for_every_environment(run):
    code, _, err = run("-n", "1", "--scaffolds", "rlm", "--set", "options.lengths=[30]", "--set", "rollout.max_turns=7")
    assert code == 0, err
    for label in ("short", "long"):
        [rollout] = stored(label)
        assert rollout["info"]["task"]["length_tokens"] == 30
        config = tomllib.loads(Path("out", label, "config.toml").read_text())
        assert config["record"]["scaffolds"]["rlm"]["config"]["max_turns"] == {"short": 7, "long": 3}[label]


def test_money_is_counted_over_all_environments(run):
    Path("prices.toml").write_text('["stub"]\nprompt = 1000.0\ncompletion = 1000.0\n')
    code, _, err = run(
        "--prices", "prices.toml", "--max-cost", "0.05", "--concurrency", "1", "--scaffolds", "standard,rlm"
    )
    assert code == 4
    assert "stopped by max-cost" in err
    assert 0 < len(stored("short")) < 6
    assert stored("long") == []


def test_an_environment_that_was_taken_out_is_missed(run, endpoint):
    run("-n", "1", "--scaffolds", "rlm")
    text = MATRIX.format(url=endpoint.url)
    Path("matrix.toml").write_text(text[: text.index('[[environments]]\nname = "word-count"\nlabel = "long"')])
    code, _, err = run("-n", "1", "--scaffolds", "rlm", "--resume")
    assert code == 2
    assert "was made with the environments long too; put them back" in err


def load(text: str, tmp_path: Path) -> EvalConfig:
    path = tmp_path / "m.toml"
    path.write_text(text)
    return load_eval_config(path, {}, "now")


def test_entries_are_laid_over_what_is_shared(tmp_path):
    config = load(
        'model = "m"\nn = 5\n[options]\nkind = "x"\nlength = 1\n[rollout]\nmax_turns = 4\nroot.temperature = 0.5\n'
        '[[environments]]\nname = "a"\n[[environments]]\nname = "b"\nn = 7\noptions = { length = 2 }\n'
        "rollout = { root.max_tokens = 9 }\n",
        tmp_path,
    )
    assert config.out == Path("outputs/m-m-now")
    runs = config.runs()
    assert {label: (run.environment, run.n, run.out.name) for label, run in runs.items()} == {
        "a": ("a", 5, "a"),
        "b": ("b", 7, "b"),
    }
    assert runs["a"].options == {"kind": "x", "length": 1}
    assert runs["b"].options == {"kind": "x", "length": 2}
    assert runs["a"].rollout == {"max_turns": 4, "root": {"temperature": 0.5}}
    assert runs["b"].rollout == {"max_turns": 4, "root": {"temperature": 0.5, "max_tokens": 9}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model = "m"\nenvironments = []', "environments: Tuple should have at least 1 item"),
        ('model = "m"\n[[environments]]\nname = "a"\n[[environments]]\nname = "a"', "'a' is there twice"),
        ('model = "m"\n[[environments]]\nnmae = "a"', "nmae"),
        ('model = "m"\nenvironment = "a"\n[[environments]]\nname = "a"', "unknown key 'environment'"),
        ('model = "m"\n[[environments]]\nname = "a"\nlabel = "../a"', "label"),
        ('model = "m"\n[[environments]]\nname = "a"\nrollout = { max_turn = 3 }', "did you mean 'max_turns'"),
    ],
)
def test_mistakes_in_a_matrix_are_named(tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        load(text, tmp_path)
    assert said in str(error.value)
