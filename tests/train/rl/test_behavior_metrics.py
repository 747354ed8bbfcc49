"""What rollouts did, in numbers: replies, ends, tools, code, by environment."""

import pytest

from rlm_env.rollout import GroupMember, Rollout, StopReason, SubCall, SubTurn, ToolResult, Turn
from rlm_env.train.rl.behavior_metrics import STOP_REASONS, behavior_metrics


def reply(size, finish="stop"):
    return {"completion_ids": [1] * size, "prompt_ids": [1], "logprobs": [-1.0] * size, "finish_reason": finish}


def test_every_number_by_hand():
    good = ToolResult("search", "{}", "found")
    bad = ToolResult("search", "{}", error="no such page")
    first = Rollout(
        turns=[
            Turn(**reply(10), code=["1/0"], error="ZeroDivisionError"),
            Turn(**reply(20), code=["print()"], tool_results=[good]),
            Turn(**reply(30, "length"), code=["while True: pass"], timed_out=True),
            Turn(**reply(4)),
        ],
        sub_calls=[
            SubCall(0, 0, 0, [], **reply(6), tool_turns=[SubTurn(**reply(2), tool_results=[good, bad])]),
            SubCall(1, 0, 0, [], error="cut off", **reply(8, "length")),
            SubCall(2, 0, 0, [], error="engine"),
        ],
        group=GroupMember("web"),
    )
    second = Rollout(turns=[Turn(**reply(2))], stop_reason=StopReason.MAX_TURNS, group=GroupMember("math"))
    metrics = behavior_metrics([first, second])
    expected = {
        "completions/mean_length": (10 + 20 + 30 + 4 + 2 + 2 + 6 + 8) / 8,
        "completions/min_length": 2,
        "completions/max_length": 30,
        "completions/mean_terminated_length": (10 + 20 + 4 + 2 + 2 + 6) / 6,
        "completions/max_terminated_length": 20,
        "completions/clipped_ratio": 2 / 8,
        "root/completions/clipped_ratio": 1 / 5,
        "root/completions/mean_length": (10 + 20 + 30 + 4 + 2) / 5,
        "sub/completions/clipped_ratio": 1 / 3,
        "sub/completions/max_length": 8,
        "stop_condition/ready": 0.5,
        "stop_condition/max_turns": 0.5,
        "stop_condition/wall_time": 0,
        "tools/call_frequency": 1.5,
        "tools/failure_frequency": 1 / 3,
        "code/error_frequency": 1 / 3,
        "code/timeout_frequency": 1 / 3,
        "turns/web": 4,
        "turns/math": 1,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_without_replies_there_is_nothing_to_measure():
    metrics = behavior_metrics([Rollout(stop_reason=StopReason.ERROR)])
    assert not [name for name in metrics if "length" in name or "clipped" in name]
    assert metrics["stop_condition/error"] == 1
    assert sum(metrics[f"stop_condition/{reason}"] for reason in STOP_REASONS) == 1
