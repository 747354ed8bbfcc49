#!/usr/bin/env python3
r"""Evaluates a model behind an OpenAI-compatible endpoint: the RLM beside the plain LLM on the same tasks.

    python examples/evaluate_endpoint.py --model gpt-5-mini \
        --base-url https://api.openai.com/v1 --key-env OPENAI_API_KEY

The run folder is that of `rlm-env eval`: `rlm-env view FOLDER` shows every turn, `rlm-env report FOLDER` the tables.
"""

from __future__ import annotations

import argparse

import rlm_env

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-rlm")
    parser.add_argument("--base-url", help="an OpenAI-compatible endpoint (default: a local vLLM)")
    parser.add_argument("--key-env", help="the environment variable that holds its key")
    parser.add_argument("--tasks", type=int, default=8)
    given = parser.parse_args()
    result = rlm_env.evaluate_sync(
        "needle-rlm",
        model=given.model,
        base_url=given.base_url,
        api_key_env=given.key_env,
        scaffolds=["standard", "rlm"],
        n=given.tasks,
        options={"profile": "tiny"},
        on_rollout=lambda rollout: print(rollout.id, rollout.stop_reason, rollout.score and rollout.score.value),
    )
    print(result.to_markdown())
    for rollout in result.rollouts():
        if rollout.score is not None and rollout.score.value < 1:
            print(f"{rollout.id}: {rollout.answer!r} instead of {rollout.gold!r}")
