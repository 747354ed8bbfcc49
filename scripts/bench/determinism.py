#!/usr/bin/env python3
"""Counts greedy rollouts on the real vLLM that differ when they run at once instead of one after the other.

    python scripts/bench/determinism.py [--quick] [--model tiny-rlm]

The loop itself is deterministic, as its tests show on a stub engine. An engine is not quite: the requests that share a
batch affect the last bits of a logit, which can decide a near tie. Prints one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import rlm_env
from rlm_env.llm import VLLMServer
from rlm_env.runs.models import packaged_models
from rlm_env.runs.profile import load_profile

GREEDY = {"temperature": 0.0}


def differences(a: rlm_env.Rollout, b: rlm_env.Rollout) -> dict[str, bool]:
    """The parts in which two rollouts of one task differ."""
    return {
        "root_tokens": [turn.completion_ids for turn in a.turns] != [turn.completion_ids for turn in b.turns],
        "sub_tokens": [call.completion_ids for call in a.sub_calls] != [call.completion_ids for call in b.sub_calls],
        "answer": a.answer != b.answer,
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 tasks of 512 tokens instead of 16 of 4,096")
    parser.add_argument("--model", default="tiny-rlm", help="a shipped model or a model folder")
    args = parser.parse_args()
    model = packaged_models().get(args.model, Path(args.model))
    profile = load_profile(model)
    renderer = profile.pop("renderer", None)
    for side in ("root", "sub"):
        profile[side] = profile.get(side, {}) | GREEDY
    count, length = (8, 512) if args.quick else (16, 4096)
    env = rlm_env.load_environment("oolong-rlm", vocabulary="easy", lengths=[length], tokenizer=str(model), **profile)
    tasks = env.tasks("eval").take(count)
    async with VLLMServer(model) as server, env:
        policy = server.policy(renderer=renderer)
        at_once = await asyncio.gather(*(env.rollout(task, policy) for task in tasks))
        in_turn = [await env.rollout(task, policy) for task in tasks]
        again = [await env.rollout(task, policy) for task in tasks]
        await policy.aclose()
    for name, runs in (("at once against in turn", at_once), ("in turn against in turn", again)):
        found = [differences(a, b) for a, b in zip(runs, in_turn, strict=True)]
        counts = {part: sum(one[part] for one in found) for part in found[0]}
        print(json.dumps({"bench": "determinism", "compared": name, "rollouts": count, "differing": counts}))


if __name__ == "__main__":
    asyncio.run(main())
