"""Runs as logs of inspect_ai, read back by inspect_ai itself."""

import contextlib
import json

import pytest

import rlm_env
from rlm_env.cli import main
from rlm_env.rollout import Rollout, write_rollouts
from rlm_env.runs.folder import RunFolder


@pytest.fixture
def inspect_log():
    return pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed: pip install 'rlm-env[inspect]'")


@pytest.fixture
def run(workplace, endpoint):
    """The folder of an eval of two tasks in two scaffolds."""
    keys = {"model": "stub", "base_url": endpoint.url, "out": "out", "progress": False}
    return rlm_env.evaluate_sync("word-count", n=2, rollout={"repl": {"preload": []}}, **keys)


def test_a_log_for_each_scaffold_with_turns_cells_and_sub_calls(run, capsys, inspect_log):
    assert main(["export", "out", "--to", "inspect", "--out", "logs"]) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 2
    logs = {
        log.eval.solver: log for log in (inspect_log.read_eval_log(path, resolve_attachments=True) for path in paths)
    }
    rlm = logs["rlm"]
    assert (rlm.status, rlm.eval.task, rlm.eval.model) == ("success", "word-count", "stub")
    assert (rlm.eval.tags, rlm.eval.task_args) == (["rlm"], {"scaffold": "rlm"})
    assert rlm.stats.model_usage["stub"].total_tokens == sum(
        usage.prompt_tokens + usage.completion_tokens
        for one in run.rollouts()
        if one.scaffold == "rlm"
        for usage in (one.root_usage, one.sub_usage)
    )
    assert rlm.results.scores[0].metrics["mean"].value == run.score("rlm")
    sample = rlm.samples[0]
    rollout = next(one for one in run.rollouts() if (one.scaffold, one.task_id) == ("rlm", sample.id))
    assert (sample.input, sample.target, sample.scores["reward"].value) == (rollout.question, rollout.gold, 1.0)
    kinds = [(event.event, getattr(event, "role", None)) for event in sample.events]
    assert kinds == [
        *(("model", "root"), ("tool", None), ("span_begin", None), ("model", "sub"), ("span_end", None)),
    ]
    root, cell, _, sub, _ = sample.events
    assert [message.role for message in root.input] == ["system", "user"]
    assert cell.arguments["code"] == rollout.turns[0].code[0]
    assert sub.output.completion == "7"
    assert sub.input[0].text == rollout.sub_calls[0].messages[0]["content"]


def test_an_overflow_is_a_sample_without_events_and_without_an_error(run, inspect_log):
    main(["export", "out", "--to", "inspect", "--out", "logs"])
    (path,) = [path for path in run.path.parent.glob("logs/*standard.eval")]
    log = inspect_log.read_eval_log(str(path))
    long = next(sample for sample in log.samples if sample.id == "eval-1")
    assert (long.metadata["stop_reason"], long.error) == ("context_overflow", None)
    assert log.results.scores[0].metrics["mean"].value == 0.5


def test_lone_surrogates_and_rollouts_that_were_stored_twice(run, inspect_log):
    """Of an error that was repeated the repetition counts, and a log is valid Unicode."""
    rollouts = [one for one in run.rollouts() if one.scaffold == "rlm"]
    bad, clean = "a\ud800\0</script>\x1b[2J", "a\ufffd\0</script>\x1b[2J"
    repeated = Rollout(rollouts[0].id, rollouts[0].task_id, "word-count", "rlm", info=rollouts[0].info, error="died")
    for one in rollouts:
        one.question = one.answer = one.gold = one.score.explanation = one.turns[0].text = one.turns[0].code[0] = bad
        one.score.metrics = {bad: 1.0}
    write_rollouts(run.path / "rollouts.jsonl", [repeated, *rollouts])
    assert main(["export", "out", "--to", "inspect", "--out", "logs"]) == 0
    (path,) = [path for path in run.path.parent.glob("logs/*rlm.eval")]
    log = inspect_log.read_eval_log(str(path), resolve_attachments=True)
    assert [(one.epoch, one.error, one.input, one.target) for one in log.samples] == [(1, None, clean, clean)] * 2
    assert log.samples[0].scores["reward"].metadata == {clean: 1.0}
    assert log.samples[0].events[1].arguments["code"] == clean


def test_the_log_of_a_run_that_is_not_complete_says_so(run, inspect_log):
    summary = json.loads((run.path / "summary.json").read_text())
    ends = (("running", "started"), ("failed", "cancelled"), ("running", "cancelled"), ("complete", "success"))
    for status, told in ends:
        (run.path / "summary.json").write_text(json.dumps({**summary, "status": status}))
        with RunFolder(run.path, resume=True) if told == "started" else contextlib.nullcontext():
            assert main(["export", "out", "--to", "inspect", "--out", "logs"]) == 0
        path = next(iter(run.path.parent.glob("logs/*rlm.eval")))
        assert inspect_log.read_eval_log(str(path), header_only=True).status == told
