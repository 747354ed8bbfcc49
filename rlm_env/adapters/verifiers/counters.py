"""The metrics of a rollout: ours by our names, and the counters of the former `RLMEnv` of verifiers by theirs."""

from __future__ import annotations

from collections import Counter

from rlm_env.rollout import Rollout, StopReason


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """All of them: `Rollout.metrics`, `unfinished` (1 unless the policy ended the rollout), and the former names."""
    ours = {name: float(value) for name, value in rollout.metrics.items()}
    return {**former_counters(rollout), **ours, "unfinished": float(rollout.stop_reason is not StopReason.READY)}


def former_counters(rollout: Rollout) -> dict[str, float]:
    """What `verifiers` up to 0.1.14 counted of a rollout."""
    calls, turns = rollout.sub_calls, rollout.turns
    batches = Counter(call.batch for call in calls).values()
    cells = sum(len(turn.code) for turn in turns)
    code_seconds = rollout.timing.code + rollout.timing.sub
    root_tools = [result for turn in turns for result in turn.tool_results]
    return {
        "sub_llm_call_count": len(calls),
        "sub_llm_total_turns": sum(len(call.replies) for call in calls),
        "sub_llm_prompt_tokens": rollout.sub_usage.prompt_tokens,
        "sub_llm_completion_tokens": rollout.sub_usage.completion_tokens,
        "sub_llm_total_tool_calls": sum(len(turn.tool_results) for call in calls for turn in call.tool_turns),
        "sub_llm_batch_count": len(batches),
        "sub_llm_max_batch_size": max(batches, default=0),
        "sub_llm_mean_batch_size": len(calls) / len(batches) if batches else 0.0,
        "root_llm_turns": len(turns),
        "root_llm_prompt_tokens": rollout.root_usage.prompt_tokens,
        "root_llm_completion_tokens": rollout.root_usage.completion_tokens,
        "repl_call_count": cells,
        "repl_total_time_seconds": code_seconds,
        "repl_mean_time_seconds": code_seconds / cells if cells else 0.0,
        "root_tool_call_count": len(root_tools),
    }
