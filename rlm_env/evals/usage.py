"""Tokens, calls, batches, tool calls and seconds of one rollout, as flat numbers.

The names are those of the old verifiers `RLMEnv` (0.1.x), which dashboards know. Every number is finite, and 0 where
there was nothing. Not covered: money (`rlm_env/runs/prices.py`), means over rollouts (`summary.py`).
"""

from __future__ import annotations

from collections import Counter

from rlm_env.rollout import Rollout, SubTurn

NAMES = (
    "sub_llm_call_count",
    "sub_llm_prompt_tokens",
    "sub_llm_completion_tokens",
    "sub_llm_cached_tokens",
    "sub_llm_total_tool_calls",
    "sub_llm_total_turns",
    "sub_llm_batch_count",
    "sub_llm_max_batch_size",
    "sub_llm_mean_batch_size",
    "main_rlm_turns",
    "main_rlm_prompt_tokens",
    "main_rlm_completion_tokens",
    "main_rlm_cached_tokens",
    "main_rlm_tool_calls",
    "repl_total_time_seconds",
    "repl_call_count",
    "repl_mean_time_seconds",
    "repl_code_time_seconds",
    "total_time_seconds",
)


def rollout_usage(rollout: Rollout) -> dict[str, float]:
    """The numbers of `NAMES`. A "turn" of a sub-LLM is one reply, a "call" one prompt of an `llm_batch`.

    `repl_total_time_seconds` counts a cell as its tool call took, waits for sub-LLMs included, as the old environment
    did; `repl_code_time_seconds` is without them. `main_rlm_*` is the root LLM, in every scaffold.
    """
    root, sub, timing = rollout.root_usage, rollout.sub_usage, rollout.timing
    batches = Counter(call.batch for call in rollout.sub_calls)
    cells = sum(len(turn.code) for turn in rollout.turns)
    in_repl = sum(turn.code_seconds + turn.sub_seconds for turn in rollout.turns)
    tools = sum(len(r.tool_results) for c in rollout.sub_calls for r in c.replies if isinstance(r, SubTurn))
    values = (
        len(rollout.sub_calls),
        sub.prompt_tokens,
        sub.completion_tokens,
        sub.cached_tokens,
        tools,
        sub.calls,
        len(batches),
        max(batches.values(), default=0),
        len(rollout.sub_calls) / len(batches) if batches else 0.0,
        len(rollout.turns),
        root.prompt_tokens,
        root.completion_tokens,
        root.cached_tokens,
        sum(len(turn.tool_results) for turn in rollout.turns),
        in_repl,
        cells,
        in_repl / cells if cells else 0.0,
        timing.code,
        timing.total,
    )
    return dict(zip(NAMES, map(float, values), strict=True))
