"""Runs exported as traces of verifiers, read, replayed and resumed by its own code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

import verifiers.v1 as vf
from verifiers.v1.cli.eval import resume
from verifiers.v1.configs.cli.eval import EvalConfig
from verifiers.v1.utils.trace_store import read_episodes

import rlm_env
from rlm_env.cli import main
from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, Score, SubCall, SubTurn, ToolResult, Turn, read_rollouts, write_rollouts
from tests.view.training_run import make_training

pytestmark = pytest.mark.slow


@pytest.fixture
def run(workplace: Path, endpoint) -> rlm_env.Evaluation:
    """The folder of an eval of two tasks in two scaffolds, seen from the folder that it was started in."""
    keys = {"model": "stub", "base_url": endpoint.url, "out": "out", "progress": False}
    return rlm_env.evaluate_sync("word-count", n=2, rollout={"repl": {"preload": []}}, **keys)


def episodes(folder: Path) -> dict[str, vf.Episode]:
    """Task id -> episode, by the loader of verifiers."""
    return {episode.task.data.id: episode for episode in read_episodes(folder, vf.WireTrace)}


def test_an_eval_is_read_replayed_and_complete_for_verifiers(run, workplace):
    assert main(["export", "out", "--to", "verifiers"]) == 0
    folder = workplace / "out" / "export" / "word-count--rlm"
    stored = episodes(folder)
    rollouts = {one.task_id: one for one in run.rollouts() if one.scaffold == "rlm"}
    assert stored.keys() == rollouts.keys() == {"eval-0", "eval-1"}
    for name, rollout in rollouts.items():
        (trace,) = stored[name].traces
        assert (stored[name].ok, trace.reward, trace.root_reply) == (True, 1.0, rollout.answer)
        assert (trace.num_turns, trace.num_branches, len(trace.calls)) == (2, 2, 2)
        root, sub = trace.branches
        assert [message.role for message in root.messages] == ["system", "user", "assistant"]
        assert root.messages[2].content == rollout.turns[0].text
        assert [message.content for message in sub.messages] == [rollout.sub_calls[0].messages[0]["content"], "7"]
        assert trace.usage.total_tokens == sum(
            usage.prompt_tokens + usage.completion_tokens for usage in (rollout.root_usage, rollout.sub_usage)
        )
        assert trace.metrics["sub_llm_call_count"] == 1
        assert [(link.node, link.type) for link in trace.nodes[4].semantic_parents] == [(2, "subagent_call")]

    replayed = workplace / "replayed"
    command = [str(Path(sys.executable).with_name("vf-replay")), str(folder), "--rich", "false", "-o", str(replayed)]
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, episode in episodes(replayed).items():
        was, (now,) = stored[name].traces[0], episode.traces
        assert now.rewards == was.rewards
        assert now.metrics.items() <= was.metrics.items()

    config = EvalConfig.model_validate_json((folder / "configs/resolved/eval.json").read_text())
    plan = resume.load(folder, list(vf.load_taskset(config.env.taskset)), config.num_rollouts)
    assert [(task.data.id, len(kept), missing) for task, kept, missing in plan] == [("eval-0", 1, 0), ("eval-1", 1, 0)]


def test_tasks_that_are_not_made_any_more_are_told_and_nothing_scores_others(run, workplace, capsys):
    lines = [json.loads(line) for line in (workplace / "out/rollouts.jsonl").read_text().splitlines()]
    changed = [{**line, "question": f"{line['question']} Or not?"} for line in lines]
    (workplace / "out/rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    assert main(["export", "out", "--to", "verifiers", "--out", "traces"]) == 0
    assert "word-count--rlm: 2 of the rollouts are of tasks" in capsys.readouterr().err.replace("\n", " ")
    for episode in episodes(workplace / "traces/word-count--rlm").values():
        assert (episode.task.type, episode.task.data.prompt[-7:]) == ("Task", "Or not?")
        with pytest.raises(ValueError, match="environment"):
            vf.task_type("rlm-env").data_type().model_validate(episode.task.data.model_dump())


def test_what_hostile_and_failed_rollouts_hold_is_kept_in_valid_unicode(run, workplace):
    (rollout,) = [one for one in run.rollouts() if (one.scaffold, one.task_id) == ("rlm", "eval-0")]
    bad = "a\ud800\0</script>\x1b[2J"
    call = {"id": None, "type": "function", "function": {"name": "look\udfff", "arguments": '{"a": '}}
    rollout.messages = [
        {"role": "system", "content": bad},
        {"role": "user", "content": [{"type": "text", "text": "in parts"}]},
        {"role": "assistant", "content": bad, "reasoning_content": bad, "tool_calls": [call]},
    ]
    rollout.turns = [Turn(text=bad, reasoning=bad, tool_calls=[call], code=[bad], usage=Usage(5, 2, 3, 1))]
    looked = SubTurn(text="", tool_calls=[call], tool_results=[ToolResult("look", "{", bad)], usage=Usage(4, 1, 0, 1))
    rollout.sub_calls = [
        SubCall(0, 0, 0, [{"role": "user", "content": bad}], text="b", tool_turns=[looked], usage=Usage(9, 3, 0, 2)),
        SubCall(1, 0, 0, [{"role": "user", "content": "x"}], error=f"too long {bad}"),
    ]
    rollout.answer, rollout.error, rollout.info["note"] = bad, bad, [bad]
    rollout.score, rollout.stop_reason = None, rlm_env.StopReason.ERROR
    write_rollouts(workplace / "out/rollouts.jsonl", [rollout])
    assert main(["export", "out", "--to", "verifiers"]) == 0
    (episode,) = read_episodes(workplace / "out/export/word-count--rlm", vf.WireTrace)
    (trace,) = episode.traces
    clean = bad.replace("\ud800", "\ufffd")
    assert (episode.ok, trace.stop_condition, trace.rewards) == (False, "harness_error", {"task_score": None})
    assert (trace.root_reply, trace.errors[0].message, trace.info["rollout"]["info"]["note"]) == (clean, clean, [clean])
    assert [node.message.content for node in trace.nodes[:3]] == [clean, "in parts", clean]
    assert trace.nodes[2].message.tool_calls[0].name == "look\ufffd"
    sub = trace.branches[1]
    assert [message.role for message in sub.messages] == ["user", "assistant", "tool", "assistant"]
    assert [call.usage.total_tokens for call in trace.calls[:3]] == [7, 5, 7]
    assert (trace.calls[3].node, trace.calls[3].error.message) == (None, f"too long {clean}")


def test_a_rollout_that_was_stored_twice_is_one_trace(run, workplace):
    first, *rest = read_rollouts(workplace / "out/rollouts.jsonl")
    failed = Rollout(first.id, first.task_id, "word-count", first.scaffold, first.question, info=first.info)
    failed.error, failed.stop_reason = "the engine died", rlm_env.StopReason.ERROR
    first.score = Score(0.25)
    write_rollouts(workplace / "out/rollouts.jsonl", [failed, *rest, first])
    assert main(["export", "out", "--to", "verifiers"]) == 0
    folder = workplace / "out/export" / f"word-count--{first.scaffold}"
    assert len(read_episodes(folder, vf.WireTrace)) == 2
    assert episodes(folder)[first.task_id].traces[0].reward == 0.25


def test_groups_and_weights_of_a_training_run(tmp_path, capsys):
    make_training(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", "verifiers"]) == 0
    assert "oolong-rlm--train: 12 of the rollouts" in capsys.readouterr().err.replace("\n", " ")
    trained = read_episodes(tmp_path / "run/export/oolong-rlm--train", vf.WireTrace)
    held_out = read_episodes(tmp_path / "run/export/oolong-rlm--held-out", vf.WireTrace)
    assert [episode.group.id for episode in trained[::4]] == [f"oolong-rlm/{group}" for group in range(3)]
    assert {episode.run.work.type for episode in trained} == {"train"}
    assert [(one.run.work.type, one.run.work.step, one.run.work.policy.end) for one in held_out[::3]] == [
        ("eval", 0, 0),
        ("eval", 2, 2),
    ]
    assert trained[0].traces[0].branches[0].token_ids
