#!/usr/bin/env python
"""Builds tiny-rlm: a language model of two million parameters that drives the REPL and is its own sub-LLM.

    python scripts/build_tiny_rlm.py                 # under an hour on two quiet cores
    python scripts/build_tiny_rlm.py --quick --out /tmp/tiny   # some minutes: a much worse model, to try the script

Everything is made from seeds: tasks of all environments in their tiny profiles, sessions of scripted teachers in the
real REPL (`scripts/tiny_rlm/`), a tokenizer, supervised training, and measurements for the model card. The same seed on
the same machine and versions, with the same number of threads, gives the same weights; elsewhere floating-point sums
may differ in the last bit, and so may the weights.

What is made lies in the folder `--work` until the end: the same command goes on where it was interrupted.
The mixture of strategies is left weak on purpose, so that reinforcement learning has something to improve.
"""

from __future__ import annotations

import os

# A thread that waits for the other one must not keep a core busy: on a shared machine that costs a factor of ten.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from tiny_rlm import evaluate, pretrain
from tiny_rlm.all_lessons import all_lessons
from tiny_rlm.card import save
from tiny_rlm.copying import copy_lessons
from tiny_rlm.mix import Mix, is_held_out, make_mix
from tiny_rlm.pretrain import Example, Stream, TrainConfig
from tiny_rlm.profile import WINDOW, make_environment
from tiny_rlm.sessions import Conversation
from tiny_rlm.shape import new_model
from tiny_rlm.tokenizer import encode_conversation, train_tokenizer

ROOT = Path(__file__).parents[1]
DEFAULT_OUT = ROOT / "rlm_env" / "models" / "tiny-rlm"
VOCABULARY = 1536
TIPS_REPEATS = 60
"""How often the tokenizer sees each fixed prompt, which no session has as often as a user of the scaffold does."""
PER_STEP = ({"roots": 12, "subs": 12, "copies": 8}, {"roots": 12, "subs": 20, "copies": 6})
"""Conversations in a step of each stage. In the second one those of sub-LLMs weigh alike: in the first, long ones with
many tool calls teach how to copy; then the short ones, whose reply is a word, have their turn."""
ROOT_SHARES = {"openings": 0.45, "sessions": 0.50, "standard": 0.05}
ROOT_WEIGHTS = {"codeqa-rlm": 1.5}
"""By environment, if not 1: longer programs need more examples."""
READING_WEIGHTS = {"deepdive-rlm": 3.0, "codeqa-rlm": 1.5, "needle-rlm": 1.5, "math-python-rlm": 0.5}
"""By environment, if not 1: those of a sub-LLM that are harder to learn."""
ROOT_PROMPT_WEIGHT = 0.1
COPIES = 4000
HELD_OUT_SHARE = 0.05
"""Of the sessions and openings, kept for measuring."""


def main() -> None:
    options = parse_arguments()
    console = Console(stderr=True)
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    check_options(options)
    start = time.monotonic()
    mixes = asyncio.run(make_mixes(options, console))
    copies = [Conversation(messages) for messages in copy_lessons(COPIES, random.Random(f"{options.seed}/copies"))]
    tokenizer = make_tokenizer(options, mixes, copies)
    held_out, kept = split(mixes)
    model = new_model(tokenizer, WINDOW, options.seed)
    stages = make_stages(tokenizer, kept, copies)
    config = TrainConfig(steps=options.steps)

    def on_step(step: int, losses: dict[str, float]) -> None:
        if step % 10 == 9:
            shown = " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            console.print(f"step {step + 1:5} of {options.steps}, {time.monotonic() - start:5.0f} s: {shown}")

    losses = pretrain.train(model, stages, config, options.seed, options.work / "checkpoint.pt", on_step)
    measured = evaluate.measure(model, tokenizer, held_out, options.seed)
    last = losses[-20:]
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "teachers": {mix.environment: teachers(mix) for mix in mixes},
        "losses": {name: round(sum(each[name] for each in last) / len(last), 4) for name in last[0]},
        **measured,
    }
    save(options, model, tokenizer, facts)
    console.print_json(data=facts)
    console.print(f"tiny-rlm is in {options.out}, built in {(time.monotonic() - start) / 60:.0f} minutes")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the model (default: the shipped one)")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/build-tiny-rlm"), help="folder of what is made on the way"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--sessions", type=int, default=320, help="sessions in the real REPL, per environment")
    parser.add_argument("--openings", type=int, default=1600, help="first replies alone, per environment")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; 1 is faster on a busy machine")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.sessions, options.openings = 200, 32, 160
    if min(options.steps, options.sessions, options.openings, options.threads) < 1:
        parser.error("--steps, --sessions, --openings and --threads must be at least 1")
    return options


def check_options(options: argparse.Namespace) -> None:
    """Stops unless what lies in the folder of work was made with the same options."""
    wanted = {name: getattr(options, name) for name in ("seed", "steps", "sessions", "openings", "threads")}
    path = options.work / "options.json"
    if not path.exists():
        path.write_text(json.dumps(wanted), encoding="utf-8")
    elif (found := json.loads(path.read_text("utf-8"))) != wanted:
        raise SystemExit(f"{options.work} holds a build with {found}: delete it, or name another folder with --work")


async def make_mixes(options: argparse.Namespace, console: Console) -> list[Mix]:
    """The conversations of each environment, from its file where there is one."""
    mixes = []
    for lessons in all_lessons():
        path = options.work / f"{lessons.environment}.json"
        if not path.exists():
            console.print(f"recording {options.sessions} sessions of {lessons.environment}")
            (await make_mix(lessons, options.sessions, options.openings, options.seed)).save(path)
        mixes.append(Mix.load(path))
    return mixes


def make_tokenizer(
    options: argparse.Namespace, mixes: Sequence[Mix], copies: Sequence[Conversation]
) -> PreTrainedTokenizerFast:
    folder = options.work / "tokenizer"
    if not folder.exists():
        texts = [str(m["content"]) for mix in mixes for each in mix.conversations for m in each.messages]
        texts += [str(call["function"]) for mix in mixes for each in mix.readings for call in _calls(each)]
        texts += [message["content"] for each in copies for message in each.messages]
        for lessons in all_lessons():
            texts += [make_environment(lessons, 0, tips=True).system_prompt(use_tool=False)] * TIPS_REPEATS
        train_tokenizer(texts, VOCABULARY, WINDOW).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _calls(conversation: Conversation) -> list[dict[str, Any]]:
    return [call for message in conversation.messages for call in message.get("tool_calls", ())]


def split(mixes: Sequence[Mix]) -> tuple[list[Mix], list[Mix]]:
    """What is held out to be measured, and what is trained on."""
    held_out, kept = [], []
    for mix in mixes:
        sessions, openings = (max(1, round(HELD_OUT_SHARE * len(each))) for each in (mix.sessions, mix.openings))
        readings = [reading for reading in mix.readings if is_held_out(reading)]
        others = [reading for reading in mix.readings if not is_held_out(reading)]
        held_out.append(Mix(mix.environment, mix.sessions[:sessions], mix.openings[:openings], readings=readings))
        kept.append(
            Mix(mix.environment, mix.sessions[sessions:], mix.openings[openings:], mix.standard, readings=others)
        )
    return held_out, kept


def make_stages(
    tokenizer: PreTrainedTokenizerFast, mixes: Sequence[Mix], copies: Sequence[Conversation]
) -> list[dict[str, Stream]]:
    """Root conversations, sub-LLM conversations and copies, for each stage."""

    def encode(conversations: Sequence[Conversation]) -> list[Example]:
        found = [encode_conversation(tokenizer, each.messages, each.tools) for each in conversations]
        return [example for example in found if len(example[0]) <= WINDOW]

    groups, weights = [], []
    for mix in mixes:
        roots = {
            "openings": encode(mix.openings),
            "sessions": encode([session.root for session in mix.sessions]),
            "standard": encode(mix.standard),
        }
        for kind, examples in roots.items():
            if examples:
                groups.append(examples)
                weights.append(ROOT_SHARES[kind] * ROOT_WEIGHTS.get(mix.environment, 1.0))
    read = [mix for mix in mixes if mix.readings]
    readings = [encode(mix.readings) for mix in read]
    reading_weights = [READING_WEIGHTS.get(mix.environment, 1.0) for mix in read]
    copied = encode(copies)
    return [
        {
            "roots": Stream(groups, weights, n["roots"], ROOT_PROMPT_WEIGHT),
            "subs": Stream(readings, reading_weights, n["subs"], by_conversation=stage == 1),
            "copies": Stream([copied], [1.0], n["copies"]),
        }
        for stage, n in enumerate(PER_STEP)
    ]


def teachers(mix: Mix) -> dict[str, float]:
    """Of the sessions that were learned from."""
    scores = [session.score for session in mix.sessions]
    sound = [session.strategy.startswith("sound") for session in mix.sessions]
    return {"score": round(sum(scores) / len(scores), 3), "sound": round(sum(sound) / len(sound), 3)}


if __name__ == "__main__":
    main()
