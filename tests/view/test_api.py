"""The answers of the viewer for a real eval: rows, numbers, rollouts, sub-calls, contexts; and what it refuses."""

import json
import os
import shutil
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rlm_env.cli.main import main
from rlm_env.evals.programs import RolloutCode, program_of
from rlm_env.evals.report import report_tables
from rlm_env.evals.stored import stored_eval
from rlm_env.rollout import Rollout, read_rollouts
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import write_config
from rlm_env.runs.jsonl import JsonLog
from rlm_env.view.api import CONTEXT_PAGE, Api, NotFound
from rlm_env.view.sub_calls import BLOCK
from rlm_env.view.workplace import Workplace
from tests.view.conftest import all_rows


def rollouts(folder) -> dict[str, Rollout]:
    return {f"{one.scaffold}/{one.task_id}/0": one for one in read_rollouts(folder / "rollouts.jsonl")}


def joined(pieces) -> str:
    return "".join(piece if isinstance(piece, str) else piece["text"] for piece in pieces)


def with_calls(folder) -> tuple[str, Rollout]:
    """The rollout with the most sub-calls, some of which failed."""
    return max(rollouts(folder).items(), key=lambda item: len(item[1].sub_calls))


def test_the_numbers_are_those_of_the_console_and_of_the_summary(api, eval_run, capsys):
    shown = api.get(["runs", "scripted", "numbers"], {})
    stored = json.loads((eval_run / "summary.json").read_text())
    sent = json.loads(json.dumps(shown["summary"]))
    assert sent == {key: stored[key] for key in sent}
    assert sent.keys() == stored_eval(eval_run).summary.to_dict().keys()
    assert main(["report", str(eval_run)]) == 0
    printed = capsys.readouterr().out
    for table in shown["tables"]:
        for row in table["rows"]:
            for cell in row:
                assert cell.strip() in printed
    assert shown["tables"][0]["rows"][0][0] == "score [95 % interval]"
    assert [table["title"] for table in shown["tables"]] == [
        table.title for table in report_tables(stored_eval(eval_run).summary, stored["title"])
    ]


def test_a_rollout_says_what_program_it_is(api, eval_run):
    key, rollout = with_calls(eval_run)
    written = program_of(rollout)
    assert written is not None
    rows = {row["key"]: row for row in all_rows(api, "scripted")}
    programs = api.get(["runs", "scripted", "programs"], {})["programs"]
    assert [name for name, keys in programs.items() if key in keys] == [written.program] == ["chunk and batch"]
    assert api.get(["runs", "scripted", "rollouts", key], {})["program"] == [written.program, *written.traits]
    plain = next(row for row in rows.values() if row["scaffold"] == "standard")
    assert not any(plain["key"] in keys for keys in programs.values())
    assert api.get(["runs", "scripted", "rollouts", plain["key"]], {})["program"] == []


def test_no_code_is_read_for_rows_and_scores(api, monkeypatch):
    def refuse(*_):
        raise AssertionError("code was read")

    monkeypatch.setattr(RolloutCode, "read", refuse)
    assert all_rows(api, "scripted")
    scores = api.get(["runs", "scripted", "scores"], {})
    monkeypatch.undo()
    numbers = api.get(["runs", "scripted", "numbers"], {})
    assert (scores["summary"]["programs"], len(numbers["summary"]["programs"]) > 0) == ([], True)
    for one in (*scores["summary"]["scaffolds"], *numbers["summary"]["scaffolds"]):
        one["traits"] = {}
    assert scores["summary"]["scaffolds"] == numbers["summary"]["scaffolds"]


def test_the_header_says_what_the_run_is(api):
    (run,) = api.get(["runs"], {})["runs"]
    assert run["kind"] == "eval"
    assert run["status"] == "complete"
    assert run["title"] == "oolong-rlm, scripted: 6 tasks"
    assert run["scaffolds"] == ["standard", "rlm"]
    assert run["planned"] == 12


def test_rows_are_what_is_in_the_file(api, eval_run):
    rows = all_rows(api, "scripted")
    stored = rollouts(eval_run)
    assert [row["key"] for row in rows] == list(stored)
    for row in rows:
        rollout = stored[row["key"]]
        assert row["score"] == rollout.score.value
        assert row["turns"] == len(rollout.turns)
        assert row["sub_calls"] == len(rollout.sub_calls)
        assert row.get("answer", "") == rollout.answer
    assert {row["outcome"] for row in rows} >= {"answered", "overflow"}
    assert api.get(["runs", "scripted", "rows"], {"after": "0:12"})["rows"] == []


def test_a_file_that_was_scored_again_is_sent_anew(eval_run, tmp_path):
    for name in ("config.toml", "summary.json", "rollouts.jsonl"):
        (tmp_path / name).write_bytes((eval_run / name).read_bytes())
    api = Api(Workplace([tmp_path]))
    name = api.get(["runs"], {})["runs"][0]["name"]
    first = api.get(["runs", name, "rows"], {})
    assert first["reset"]
    copy = tmp_path / "new"
    copy.write_bytes((eval_run / "rollouts.jsonl").read_bytes())
    os.replace(copy, tmp_path / "rollouts.jsonl")
    again = api.get(["runs", name, "rows"], {"after": first["after"]})
    assert again["reset"]
    assert len(again["rows"]) == 12


def test_a_rollout_is_a_time_line(api, eval_run):
    key, rollout = with_calls(eval_run)
    page = api.get(["runs", "scripted", "rollouts", key], {})
    assert page["question"] == rollout.question
    assert page["answer"] == rollout.answer
    assert page["score"]["value"] == rollout.score.value
    assert len(page["turns"]) == len(rollout.turns)
    for shown, turn in zip(page["turns"], rollout.turns, strict=True):
        assert shown["thoughts"] == (turn.reasoning or "")
        cells = ["".join(text for _, text in part["code"]) for part in shown["parts"] if part.get("ran")]
        assert cells == turn.code
        assert joined(shown["observation"]) == turn.observation
        assert shown["answer"] == turn.answer
    changed = [shown["answer"] for shown in page["turns"] if shown["answer"] is not None]
    assert changed[-1] == rollout.answer
    by_name = {budget["name"]: budget for budget in page["budgets"]}
    assert by_name["turns"]["limit"] == 6
    assert by_name["turns"]["spent"] == list(range(1, len(rollout.turns) + 1))
    assert by_name["sub-calls"]["spent"][-1] == len(rollout.sub_calls)
    usage = rollout.root_usage
    assert by_name["root tokens"]["spent"][-1] == usage.prompt_tokens + usage.completion_tokens
    assert by_name["seconds"]["spent"][-1] == rollout.timing.total
    assert 0.5 < page["coverage"]["read"] / page["coverage"]["chars"] <= 1


def test_sub_calls_come_by_batch(api, eval_run):
    key, rollout = with_calls(eval_run)
    base = ["runs", "scripted", "rollouts", key]
    page = api.get(base, {})
    assert sum(batch["calls"] for batch in page["batches"]) == len(rollout.sub_calls)
    for batch in page["batches"]:
        listed = api.get([*base, "calls", str(batch["batch"])], {})["calls"]
        mine = [call for call in rollout.sub_calls if call.batch == batch["batch"]]
        assert [line[0] for line in listed] == [call.id for call in mine]
        whole = []
        for block in range((len(mine) + BLOCK - 1) // BLOCK):
            whole += api.get([*base, "calls", str(batch["batch"]), str(block)], {})["calls"]
        for shown, call in zip(whole, mine, strict=True):
            pieces = shown["messages"][0]["content"]
            left_out = sum(
                piece["end"] - piece["start"] - len(piece["text"]) for piece in pieces if piece != str(piece)
            )
            assert call.messages[0]["content"].startswith(joined(pieces))
            assert len(joined(pieces)) + left_out == len(call.messages[0]["content"])
            assert shown["answer"]["parts"] == ([call.text] if call.text else [])
            assert shown["error"] == call.error


def test_a_list_of_sub_calls_shows_where_prompts_differ(api, eval_run):
    key, _ = with_calls(eval_run)
    listed = api.get(["runs", "scripted", "rollouts", key, "calls", "0"], {})["calls"]
    assert len(listed) > 2
    starts = [line[1] for line in listed]
    assert all(start.startswith("… ") and "Label each message" not in start for start in starts)
    assert len(set(starts)) == len(starts)


def test_the_context_is_there_in_pages(api, eval_run):
    key, rollout = with_calls(eval_run)
    base = ["runs", "scripted", "rollouts", key, "context"]
    pages = [api.get([*base, str(page)], {}) for page in range((len(rollout.context) - 1) // CONTEXT_PAGE + 1)]
    assert "".join(page["text"] for page in pages) == rollout.context
    assert pages[0]["readers"]["count"] > 0


def test_a_context_that_is_gone_costs_its_quotes_only(eval_run, tmp_path):
    for name in ("config.toml", "rollouts.jsonl"):
        (tmp_path / name).write_bytes((eval_run / name).read_bytes())
    api = Api(Workplace([tmp_path]))
    name = api.get(["runs"], {})["runs"][0]["name"]
    key, rollout = with_calls(eval_run)
    page = api.get(["runs", name, "rollouts", key], {})
    assert "cannot be read" in page["context_problem"]
    assert page["answer"] == rollout.answer
    assert [turn["thoughts"] for turn in page["turns"]] == [turn.reasoning for turn in rollout.turns]
    with pytest.raises(NotFound, match="cannot be read"):
        api.get(["runs", name, "rollouts", key, "context", "0"], {})


@pytest.mark.parametrize(
    "parts",
    [
        ["x"],
        ["runs", "none", "rows"],
        ["runs", "scripted", "rollouts", "none"],
        ["runs", "scripted", "rollouts", "rlm/eval-0-0/0", "calls", "x"],
        ["runs", "scripted", "rollouts", "rlm/eval-0-0/0", "samples", "0", "0"],
        ["runs", "scripted", "rollouts", "rlm/eval-0-0/0", "..", "config.toml"],
        ["runs", "..", "rows"],
    ],
)
def test_what_is_not_there_is_said(api, parts):
    with pytest.raises(NotFound):
        api.get(parts, {})


def test_a_run_that_is_written_is_running(eval_run, tmp_path):
    for name in ("config.toml", "rollouts.jsonl"):
        (tmp_path / name).write_bytes((eval_run / name).read_bytes())
    (tmp_path / "summary.json").write_text('{"status": "running"}')
    run = Workplace([tmp_path]).runs()[0]
    assert run.header()["status"] == "stopped"
    with JsonLog(tmp_path / "rollouts.jsonl"):
        assert run.header()["status"] == "running"


def test_runs_are_found_below_a_folder_and_files_are_runs_too(eval_run, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").symlink_to(eval_run)
    for name in ("a", "b"):
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        (folder / "rollouts.jsonl").write_bytes((eval_run / "rollouts.jsonl").read_bytes())
    assert [run.name for run in Workplace([tmp_path]).runs()] == ["a/run", "b/run"]
    assert Workplace([eval_run / "config.toml"]).runs()[0].kind == "eval"  # a file of a run stands for it
    (tmp_path / "saved.jsonl").write_bytes((eval_run / "rollouts.jsonl").read_bytes())
    (run,) = Workplace([tmp_path / "saved.jsonl"]).runs()
    assert run.kind == "rollouts"
    run.refresh()
    assert len(run.stats(programs=False)) == 12
    assert run.numbers()["summary"]["scaffolds"][0]["rollouts"] == 6
    for path in (tmp_path / "none", tmp_path / "deep"):
        with pytest.raises(ConfigError):
            Workplace([path])


def test_a_config_that_cannot_be_read_is_told_and_the_rollouts_shown(eval_run, tmp_path):
    (tmp_path / "rollouts.jsonl").write_bytes((eval_run / "rollouts.jsonl").read_bytes())
    (tmp_path / "config.toml").write_text('scaffolds = ["rlm"]\nunknown = 1\n')
    (run,) = Workplace([tmp_path]).runs()
    assert "unknown" in run.header()["problem"]
    run.refresh()
    assert len(run.stats(programs=False)) == 12


def test_an_eval_on_several_environments_is_one_title(eval_run, tmp_path):
    values = tomllib.loads((eval_run / "config.toml").read_text())
    del values["record"]
    for label in ("short", "long"):
        shutil.copytree(eval_run, tmp_path / label)
    entries = [{"name": "oolong-rlm", "label": label} for label in ("short", "long")]
    write_config(tmp_path, {**values, "environments": entries})
    answer = Api(Workplace([tmp_path])).get(["runs"], {})
    assert [run["name"] for run in answer["runs"]] == ["long", "short"]
    (matrix,) = answer["matrices"]
    assert matrix["runs"] == ["long", "short"]
    assert matrix["title"] == "scripted: 2 environments x 2 scaffolds"


def test_numbers_are_counted_again_when_there_is_more_but_not_all_the_time(eval_run, tmp_path, monkeypatch):
    lines = (eval_run / "rollouts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "config.toml").write_bytes((eval_run / "config.toml").read_bytes())
    (tmp_path / "rollouts.jsonl").write_text("".join(lines[:6]))
    api = Api(Workplace([tmp_path]))
    name = api.get(["runs"], {})["runs"][0]["name"]
    now = 0.0
    monkeypatch.setattr("rlm_env.view.api.time.monotonic", lambda: now)
    with JsonLog(tmp_path / "rollouts.jsonl") as log:
        first = api.get(["runs", name, "numbers"], {})
        assert (first["rollouts"], first["status"]) == (6, "running")
        kept = api._numbers[name, True]
        api._numbers[name, True] = replace(kept, next_at=5.0)  # as if counting had taken half a second
        log.append_line(lines[6].rstrip())
        assert api.get(["runs", name, "numbers"], {})["rollouts"] == 6
        now = 5.0
        assert api.get(["runs", name, "numbers"], {})["rollouts"] == 7
    (tmp_path / "summary.json").write_bytes((eval_run / "summary.json").read_bytes())
    assert api.get(["runs", name, "numbers"], {})["status"] == "complete"
    assert [table["title"] for table in api.get(["runs", name, "numbers"], {})["tables"]][-1].startswith("Baselines")


def test_many_may_ask_while_a_file_grows(eval_run, tmp_path):
    (tmp_path / "config.toml").write_bytes((eval_run / "config.toml").read_bytes())
    lines = (eval_run / "rollouts.jsonl").read_text().splitlines()
    api = Api(Workplace([write_first(tmp_path, lines)]))
    name = api.get(["runs"], {})["runs"][0]["name"]
    done = threading.Event()

    def ask(what: str) -> None:
        while not done.is_set():
            api.get(["runs", name, what], {})
            list(api.workplace.run(name).stats(programs=True))

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, what) for what in ("rows", "rows", "groups", "rows")]
        with JsonLog(tmp_path / "rollouts.jsonl") as log:
            for number in range(150):
                record = json.loads(lines[number % len(lines)])
                log.append({**record, "task_id": f"task-{number}"})
        done.set()
        for one in asking:
            one.result()
    assert len(all_rows(api, name)) == 151


def write_first(folder, lines):
    (folder / "rollouts.jsonl").write_text(lines[0] + "\n")
    return folder
