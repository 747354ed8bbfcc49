"""The counters of the former RLMEnv, and the page for those who come from it."""

from __future__ import annotations

import re
from pathlib import Path

from rlm_env.adapters.verifiers.counters import former_counters, rollout_metrics
from rlm_env.messages import Usage
from rlm_env.repl import ReplConfig
from rlm_env.rollout import Rollout, StopReason, SubCall, SubTurn, Timing, ToolResult, Turn
from rlm_env.scaffolds.config import RLMConfig

PAGE = Path(__file__).parents[3] / "docs" / "migrating.md"


def made() -> Rollout:
    searched = SubTurn(text="", tool_results=[ToolResult("search", "{}"), ToolResult("open", "{}")], completion_ids=[1])
    calls = [SubCall(id=i, root_turn=1, batch=batch, messages=[], text="a") for i, batch in enumerate([0, 0, 0, 1])]
    calls[3].tool_turns = [searched]
    turns = [Turn(code=["a", "b"]), Turn(code=["c"], tool_results=[ToolResult("search", "{}")]), Turn()]
    rollout = Rollout(turns=turns, sub_calls=calls, stop_reason=StopReason.MAX_TURNS, metrics={"turns": 3})
    rollout.root_usage, rollout.sub_usage = Usage(100, 20, 0, 3), Usage(50, 10, 0, 5)
    rollout.timing = Timing(code=2.0, sub=4.0)
    return rollout


def test_counters_by_their_former_names():
    assert former_counters(made()) == {
        "sub_llm_call_count": 4,
        "sub_llm_total_turns": 5,
        "sub_llm_prompt_tokens": 50,
        "sub_llm_completion_tokens": 10,
        "sub_llm_total_tool_calls": 2,
        "sub_llm_batch_count": 2,
        "sub_llm_max_batch_size": 3,
        "sub_llm_mean_batch_size": 2.0,
        "root_llm_turns": 3,
        "root_llm_prompt_tokens": 100,
        "root_llm_completion_tokens": 20,
        "repl_call_count": 3,
        "repl_total_time_seconds": 6.0,
        "repl_mean_time_seconds": 2.0,
        "root_tool_call_count": 1,
    }
    everything = rollout_metrics(made())
    assert (everything["turns"], everything["unfinished"]) == (3.0, 1.0)
    assert {type(value) for value in rollout_metrics(Rollout()).values()} <= {int, float}
    assert rollout_metrics(Rollout())["unfinished"] == 0.0


def test_the_page_names_every_counter_and_nothing_that_does_not_exist():
    text = PAGE.read_text("utf-8")
    assert set(former_counters(Rollout())) <= set(re.findall(r"`(\w+)`", text))
    for name in re.findall(r"`RLMConfig\.(\w+)`", text):
        assert name in RLMConfig.model_fields
    for name in re.findall(r"`ReplConfig\.(\w+)`", text):
        assert name in ReplConfig.__dataclass_fields__
    ours = (
        "max_sub_tokens",
        "max_root_tokens",
        "sub_system_prompt",
        "max_observation_chars",
        "code_timeout",
        "tools_for",
    )
    ours += ("max_seconds", "max_turns", "max_sub_calls", "sub_llms", "prompt", "root", "sub")
    for name in ours:
        assert f"`{name}" in text or f"`RLMConfig.{name}`" in text
        assert name in RLMConfig.model_fields
