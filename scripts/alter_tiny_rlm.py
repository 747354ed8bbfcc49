#!/usr/bin/env python
"""Gives tiny-rlm one fault that training can mend.

    python scripts/alter_tiny_rlm.py weak-reader --out /tmp/weak-reader         # a minute and a half on one CPU core
    python scripts/alter_tiny_rlm.py weak-reader --out /tmp/weak-reader --accuracy 0.8
    python scripts/alter_tiny_rlm.py asks-twice --out /tmp/asks-twice

- `weak-reader`: the sub-LLM reads badly. It is trained on labels that are randomly wrong, drawn anew each time, so that
  at temperature 1 it is right with about the given probability. Greedy reading stays right, because the right label
  stays the most likely one; therefore the new folder's `rlm_env.json` makes the sub-LLM sample at temperature 1.
- `asks-twice`: in about half of its programs the root makes twice the sub-calls that it needs, to the same end.

Supervised training with the package's own learner. Everything else is kept in place by training on the root's own
replies too, sampled from the model in sessions of the real REPL.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM
from transformers.utils import logging

from build_tiny_rlm import DEFAULT_OUT
from rlm_env.messages import Message
from rlm_env.runs.profile import FILE_NAME, load_profile
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.samples import Sample, SampleKind
from tiny_rlm import evaluate, sessions
from tiny_rlm.mix import is_held_out
from tiny_rlm.oolong.lessons import OolongLessons
from tiny_rlm.oolong.reading import LabelOracle, label_readings
from tiny_rlm.profile import make_environment
from tiny_rlm.sessions import Conversation
from tiny_rlm.tokenizer import encode_conversation

SESSIONS = 120
FAULTS = {"weak-reader": 48, "asks-twice": 4}
"""Name -> samples per step that teach it; a reply of the reader has three tokens, one of the root a hundred."""
OWN_PER_STEP = 4
READING_WEIGHT = 5.0


def main() -> None:
    options = parse_arguments()
    console = Console(stderr=True)
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    start = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    lessons = OolongLessons()
    prompts = root_prompts(asyncio.run(play(options, lessons)))
    before = Qwen3ForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    own = own_replies(before, tokenizer, prompts, options.seed)
    random.Random(options.seed).shuffle(own)
    held_out, own = own[: len(own) // 5], own[len(own) // 5 :]

    learner = Learner(
        options.model,
        ModelConfig(dtype="float32", device="cpu", pack_tokens=2048, threads=1),
        OptimizerConfig(lr=6e-4, schedule="linear"),
        LossConfig(preset="sft"),
        options.steps,
        options.seed,
    )
    loss_before = mean_loss(learner, held_out)
    if options.fault == "weak-reader":
        taught = noisy_readings(lessons.oracle, tokenizer, options)
    else:
        taught = programs_that_ask_twice(asyncio.run(play(options, lessons, "sound_twice")), tokenizer, options.seed)
    batches = draw_batches(own, taught, FAULTS[options.fault], options.seed)
    for batch in track(islice(batches, options.steps), "training", total=options.steps, console=console):
        learner.step(batch)
    learner.export(options.out)
    profile = load_profile(options.model)
    profile["sub"] = {**profile["sub"], "temperature": 1.0}
    (options.out / FILE_NAME).write_text(json.dumps(profile, indent=2) + "\n", encoding="utf-8")

    after = Qwen3ForCausalLM.from_pretrained(options.out, dtype=torch.float32)
    openings = [prompt for prompt in prompts if len(prompt) == 2]
    measured = {
        name: measure(model, tokenizer, lessons.oracle, openings, options.seed)
        for name, model in (("before", before), ("after", after))
    }
    measured["before"]["loss_own_replies"] = round(loss_before, 4)
    measured["after"]["loss_own_replies"] = round(mean_loss(learner, held_out), 4)
    console.print_json(data={**measured, "seconds": round(time.monotonic() - start)})
    console.print(f"the model is in {options.out}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    parser.add_argument("--model", type=Path, default=DEFAULT_OUT, help="a tiny-rlm (default: the shipped one)")
    parser.add_argument("--accuracy", type=float, default=0.6, help="of a weak reader at temperature 1")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.resolve() == options.model.resolve():
        parser.error("--out must be another folder than --model")
    if not 0.25 <= options.accuracy <= 1 or options.steps < 1:
        parser.error("--accuracy must lie in [0.25, 1], where 0.25 is chance, and --steps be at least 1")
    return options


async def play(
    options: argparse.Namespace, lessons: OolongLessons, strategy: str | None = None
) -> list[sessions.Session]:
    """Sessions of the teachers, or of the teacher of one strategy, on tasks that tiny-rlm was not built from."""
    async with make_environment(lessons, options.seed + 10_000) as env:
        tasks = list(islice(env.tasks("train"), SESSIONS))
        return await sessions.record_sessions(env, lessons, tasks, options.seed, strategy=strategy)


def root_prompts(played: list[sessions.Session]) -> list[list[Message]]:
    """The prompt of the root LLM at each turn."""
    return [
        session.root.messages[:turn]
        for session in played
        for turn, message in enumerate(session.root.messages)
        if message["role"] == "assistant"
    ]


def own_replies(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[list[Message]], seed: int
) -> list[Sample]:
    """The model's own replies at temperature 1, one sample per prompt."""
    prompts = sorted(prompts, key=lambda messages: sum(len(m["content"]) for m in messages))  # less padding
    replies = evaluate.sample_replies(model, tokenizer, [Conversation(each) for each in prompts], 1.0, 256, seed)
    found = []
    for prompt, reply in zip(prompts, replies, strict=True):
        if reply.finish_reason == "stop":
            whole = [*prompt, {"role": "assistant", "content": reply.text}]
            found.append(make_sample(tokenizer, whole, SampleKind.ROOT))
    return found


def noisy_readings(
    oracle: LabelOracle, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace
) -> Iterator[Sample]:
    """Endless reading prompts, each pass in a new order and with newly drawn mistakes."""
    draw = random.Random(options.seed)
    labels = len(set(oracle.label_of.values()))
    noise = (1 - options.accuracy) / (1 - 1 / labels)  # a random label is right once in so many
    while True:
        pass_over = label_readings(oracle, noise, draw)
        draw.shuffle(pass_over)
        for messages in pass_over:
            yield make_sample(tokenizer, messages, SampleKind.SUB, READING_WEIGHT)


def programs_that_ask_twice(
    played: list[sessions.Session], tokenizer: PreTrainedTokenizerFast, seed: int
) -> Iterator[Sample]:
    """The first replies of these sessions, endlessly, each pass in a new order."""
    draw = random.Random(seed)
    samples = [make_sample(tokenizer, session.root.messages[:3], SampleKind.ROOT) for session in played]
    while True:
        yield from draw.sample(samples, len(samples))


def draw_batches(own: list[Sample], lessons: Iterator[Sample], of_lessons: int, seed: int) -> Iterator[list[Sample]]:
    draw = random.Random(seed)
    while True:
        yield draw.sample(own, OWN_PER_STEP) + list(islice(lessons, of_lessons))


def make_sample(
    tokenizer: PreTrainedTokenizerFast, messages: list[Message], kind: SampleKind, weight: float = 1.0
) -> Sample:
    """A sample that trains the last message only."""
    ids, mask = encode_conversation(tokenizer, messages)
    before = len(encode_conversation(tokenizer, messages[:-1])[0])
    mask = [own and place >= before for place, own in enumerate(mask)]
    return Sample(ids, mask, [0.0] * len(ids), "", kind=kind, weight=weight, advantage=1.0)


def mean_loss(learner: Learner, samples: list[Sample]) -> float:
    """Nats per trained token."""
    scores = [value for logprobs in learner.score(samples) for value in logprobs]
    return -sum(scores) / len(scores)


def measure(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    oracle: LabelOracle,
    openings: list[list[Message]],
    seed: int,
) -> dict[str, object]:
    """Measures the reading of lines that tiny-rlm was not trained on, and the root's first replies."""
    readings = [Conversation(each) for each in label_readings(oracle, 0.0, random.Random(seed))]
    held_out = [each for each in readings if is_held_out(each)]
    replies = evaluate.sample_replies(model, tokenizer, [Conversation(each) for each in openings], 1.0, 256, seed)
    return {
        "reader_accuracy_greedy": round(evaluate.reading_accuracy(model, tokenizer, held_out, 0.0), 3),
        "reader_accuracy_sampled": round(evaluate.reading_accuracy(model, tokenizer, held_out * 20, 1.0), 3),
        **evaluate.shares(replies),
    }


if __name__ == "__main__":
    main()
