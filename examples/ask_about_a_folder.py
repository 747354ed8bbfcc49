#!/usr/bin/env python3
r"""Asks a question about the files of a folder, and prints what the model does while it works.

    python examples/ask_about_a_folder.py "Where is the retry policy?" src --model gpt-5-mini \
        --base-url https://api.openai.com/v1 --key-env OPENAI_API_KEY

Secrets, links, what git ignores and files that are no text stay out of it. The command line has the same as
`rlm-env ask`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rlm_env
from rlm_env.events import AnswerChanged, CodeStarted, Event, SubCallEnded


def show(event: Event) -> None:
    """Prints code, sub-calls and the answer as they come."""
    match event:
        case CodeStarted(code=code):
            print(code)
        case SubCallEnded(call=call):
            print(f"  sub-LLM: {call.error or call.text[:80]!r}")
        case AnswerChanged(content=content):
            print(f"answer so far: {content}")
        case _:
            pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny-rlm")
    parser.add_argument("--base-url", help="an OpenAI-compatible endpoint (default: a local vLLM)")
    parser.add_argument("--key-env", help="the environment variable that holds its key")
    given = parser.parse_args()
    rollout = rlm_env.ask_sync(
        given.question,
        given.folder,
        model=given.model,
        base_url=given.base_url,
        api_key_env=given.key_env,
        on_event=show,
    )
    print(rollout.answer or f"no answer: {rollout.error or rollout.stop_reason}")
