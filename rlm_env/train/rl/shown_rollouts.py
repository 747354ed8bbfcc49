"""Trained rollouts as rows that a person can read: what was asked, what the policy did, what it was worth."""

from __future__ import annotations

import random
from typing import Any

from rlm_env.repl.bounds import shorten
from rlm_env.rollout import Rollout
from rlm_env.train.rl.behavior_metrics import sampled_tokens
from rlm_env.train.rl.groups import Batch, RolloutGroup

CONVERSATION_CHARS = 20_000
"""Longer conversations are shortened in the middle."""
SUB_CALLS = 3
"""Sub-calls of a rollout that are shown in full, the first ones."""


def rollout_rows(batch: Batch, count: int) -> list[dict[str, Any]]:
    """At most `count` of the batch's rollouts with a reward, drawn at random, the same ones each time."""
    found = [
        (group, rollout, reward, advantage)
        for group in batch.groups
        for rollout, reward, advantage in zip(group.rollouts, group.rewards, group.advantages, strict=True)
        if reward is not None
    ]
    drawn = random.Random(batch.step).sample(found, min(count, len(found)))
    return [_row(batch, *one) for one in drawn]


def _row(batch: Batch, group: RolloutGroup, rollout: Rollout, reward: float, advantage: float) -> dict[str, Any]:
    return {
        "step": batch.step,
        "environment": group.environment,
        "group": group.number,
        "reward": reward,
        "advantage": advantage,
        "stop": str(rollout.stop_reason),
        "turns": len(rollout.turns),
        "sub_calls": len(rollout.sub_calls),
        "tokens": sampled_tokens(rollout),
        "off_policy_steps": batch.off_policy_steps(rollout),
        "question": rollout.question,
        "gold": str(rollout.gold),
        "answer": rollout.answer,
        "conversation": shorten(_conversation(rollout), CONVERSATION_CHARS),
    }


def _conversation(rollout: Rollout) -> str:
    parts = [f"[{message['role']}]\n{message.get('content') or ''}" for message in rollout.messages]
    for call in rollout.sub_calls[:SUB_CALLS]:
        asked = "\n".join(str(message.get("content") or "") for message in call.messages)
        parts.append(f"[sub-call {call.id}]\n{asked}\n[its answer]\n{call.text or call.error or ''}")
    if len(rollout.sub_calls) > SUB_CALLS:
        parts.append(f"[and {len(rollout.sub_calls) - SUB_CALLS} more sub-calls]")
    return "\n\n".join(parts)
