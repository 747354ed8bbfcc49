"""Runs as data sets: what `datasets` and `pyarrow` read back."""

import json

import pytest

from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, Score, SubCall, SubTurn, ToolResult, Turn, write_rollouts

pyarrow = pytest.importorskip("pyarrow")
dataset = pytest.importorskip("rlm_env.adapters.dataset")


def make_rollouts():
    call = SubCall(id=0, root_turn=0, batch=0, messages=[{"role": "user", "content": "look it up"}], text="found")
    searched = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    call.tool_turns = [SubTurn(text="", tool_calls=[searched], tool_results=[ToolResult("search", "{}", "a page")])]
    failed = SubCall(id=1, root_turn=0, batch=0, messages=[{"role": "user", "content": "x"}], error="too long")
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "code \ud800", "tool_calls": [searched]},
    ]
    yield Rollout(
        *("rlm/a/0", "a", "needle", "rlm", "Q?", {"n": 1}, "42"),
        messages=messages,
        turns=[Turn(text="code")],
        sub_calls=[call, failed],
        root_usage=Usage(10, 5, 0, 1),
        score=Score(0.5, {"near": 1.0}, "half right"),
        info={"root": "big", "sub": "small"},
    )
    yield Rollout("rlm/b/0", "b", "needle", "rlm", "Q?", "gold\ud800", error="boom\udfff")


def test_rows_of_rollouts_and_conversations(tmp_path):
    rollouts, conversations = dataset.write_parquet(make_rollouts, tmp_path)
    first, second = pyarrow.parquet.read_table(rollouts).to_pylist()
    assert (first["gold"], first["score"], first["root_tokens"], first["sub_model"]) == ('{"n": 1}', 0.5, 15, "small")
    assert json.loads(first["metrics"])["near"] == 1.0
    assert (second["gold"], second["score"], second["error"], second["messages"]) == (
        *("gold\ufffd", None, "boom\ufffd", []),
    )
    root, sub, failed = pyarrow.parquet.read_table(conversations).to_pylist()
    assert [row["role"] for row in (root, sub, failed)] == ["root", "sub", "sub"]
    assert root["messages"][-1]["content"] == 'code \ufffd\n{"name": "search", "arguments": "{}"}'
    assert [message["content"] for message in sub["messages"]] == [
        *("look it up", '{"name": "search", "arguments": "{}"}', "a page", "found"),
    ]
    assert (failed["error"], len(failed["messages"])) == ("too long", 1)


def test_a_rollout_that_was_stored_twice_is_one_row(tmp_path):
    from rlm_env.cli import main

    first, second = make_rollouts()
    failed = Rollout(first.id, first.task_id, "needle", error="the engine died")
    write_rollouts(tmp_path / "rollouts.jsonl", [failed, second, first])
    assert main(["export", str(tmp_path), "--to", "parquet"]) == 0
    rows = pyarrow.parquet.read_table(tmp_path / "export" / "rollouts.parquet").to_pylist()
    assert [(row["id"], row["score"]) for row in rows] == [(second.id, None), (first.id, 0.5)]


def test_a_folder_for_the_hub_is_read_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset.write_hub_folder(make_rollouts, tmp_path / "data", "my-run", "0.2.0")
    loaded = datasets.load_dataset(str(tmp_path / "data"), "conversations", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 3
    assert "2 rollouts of needle" in (tmp_path / "data" / "README.md").read_text()


def test_the_command_writes_what_it_names_and_refuses_a_folder_without_rollouts(tmp_path, capsys):
    from rlm_env.cli import main

    run = tmp_path / "run"
    run.mkdir()
    assert main(["export", str(run), "--to", "parquet"]) == 2
    assert "holds no rollouts" in capsys.readouterr().err
    write_rollouts(run / "rollouts.jsonl", [rollout for rollout in make_rollouts() if rollout.task_id == "b"])
    assert main(["export", str(run), "--to", "parquet"]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(run / "export" / name) for name in ("rollouts.parquet", "conversations.parquet")]
    assert pyarrow.parquet.read_table(written[0]).num_rows == 1
