"""What the rollouts of a step did: how long their replies were, why they ended, which tools and code failed.

Names are TRL's and prime-rl's where they mean the same. Rewards, groups and tokens are in `batch_metrics.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from rlm_env.averages import mean_or_zero
from rlm_env.rollout import Reply, Rollout, StopReason, Turn
from rlm_env.tools.box import tool_results

STOP_REASONS = tuple(reason for reason in StopReason if reason not in (StopReason.LENGTH, StopReason.CANCELLED))
"""Those that a rollout of the REPL can have."""


def behavior_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Over all rollouts, failed ones too:

    - `completions/mean_length`, `min_length`, `max_length`: tokens of a reply, root and sub-LLM alike;
      `completions/mean_terminated_length` (`min_`, `max_`): of replies that ended by themselves;
      `completions/clipped_ratio`: share of those that their token limit cut off. The same under `root/` and `sub/`.
    - `stop_condition/<reason>`: share of the rollouts that ended so.
    - `tools/call_frequency`: tool calls per rollout; `tools/failure_frequency`: share of the calls that failed.
    - `code/error_frequency`, `code/timeout_frequency`: share of the turns with code that raised, or ran too long.
    - `turns/<environment>`, `tokens/per_rollout/<environment>`: means by environment.
    """
    metrics = {f"stop_condition/{reason}": 0.0 for reason in STOP_REASONS}
    for reason, count in Counter(rollout.stop_reason for rollout in rollouts).items():
        metrics[f"stop_condition/{reason}"] = count / len(rollouts)
    root = [turn for rollout in rollouts for turn in rollout.turns]
    sub = [reply for rollout in rollouts for call in rollout.sub_calls for reply in call.replies]
    for prefix, replies in (("", [*root, *sub]), ("root/", root), ("sub/", sub)):
        metrics |= {f"{prefix}completions/{name}": value for name, value in _lengths(replies).items()}
    calls = [result for rollout in rollouts for result in tool_results(rollout)]
    metrics["tools/call_frequency"] = len(calls) / max(len(rollouts), 1)
    metrics["tools/failure_frequency"] = mean_or_zero(call.error is not None for call in calls)
    return metrics | _code(root) | _by_environment(rollouts)


def sampled_tokens(rollout: Rollout) -> int:
    """Tokens that root and sub-LLMs sampled."""
    return rollout.root_usage.completion_tokens + rollout.sub_usage.completion_tokens


def _lengths(replies: Sequence[Reply]) -> dict[str, float]:
    known = [reply for reply in replies if reply.completion_ids is not None]
    ended = [reply for reply in known if reply.finish_reason != "length"]
    found = {"clipped_ratio": 1 - len(ended) / len(known)} if known else {}
    for name, part in (("", known), ("terminated_", ended)):
        lengths = [len(reply.completion_ids or ()) for reply in part]
        if lengths:
            found |= {f"mean_{name}length": fmean(lengths), f"min_{name}length": float(min(lengths))}
            found[f"max_{name}length"] = float(max(lengths))
    return found


def _code(turns: Iterable[Turn]) -> dict[str, float]:
    ran = [turn for turn in turns if turn.code]
    return {
        "code/error_frequency": mean_or_zero(turn.error is not None for turn in ran),
        "code/timeout_frequency": mean_or_zero(turn.timed_out for turn in ran),
    }


def _by_environment(rollouts: Sequence[Rollout]) -> dict[str, float]:
    found: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        if rollout.group is not None:
            found[rollout.group.label].append(rollout)
    metrics = {}
    for label, own in found.items():
        metrics[f"turns/{label}"] = mean_or_zero(len(rollout.turns) for rollout in own)
        metrics[f"tokens/per_rollout/{label}"] = mean_or_zero(map(sampled_tokens, own))
    return metrics
