#!/usr/bin/env python
"""Builds tiny-rlm: a language model of a million parameters that drives the REPL and reads lines as its own sub-LLM.

    python scripts/build_tiny_rlm.py                 # 10 to 25 minutes, depending on the load of the machine
    python scripts/build_tiny_rlm.py --quick --out /tmp/tiny   # a minute or two: a much worse model, to try the script

Everything is made from seeds: tasks of `oolong-rlm` in its easy vocabulary, sessions of scripted teachers in the real
REPL (`scripts/tiny_rlm/teachers.py`), reading tasks, a tokenizer, supervised training from random weights, and
measurements for the model card. The same seed on the same machine and versions, with the same number of threads,
gives the same files; elsewhere floating-point sums may differ in the last bit, and so may the weights.

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
import platform
import random
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from transformers.utils import logging

import rlm_env
import tiny_rlm
from rlm_env.messages import Message
from rlm_env.runs.profile import FILE_NAME, load_profile
from tiny_rlm import evaluate, pretrain, reading, sessions
from tiny_rlm.pretrain import Example, TrainConfig
from tiny_rlm.tokenizer import encode_conversation, train_tokenizer

ROOT = Path(__file__).parents[1]
DEFAULT_OUT = ROOT / "rlm_env" / "models" / "tiny-rlm"
HARD_CONTEXTS = 60
PLAIN_REPEATS = 10
"""Copies of each plainly worded line among the reading tasks; with reader noise, each copy draws its own label."""
WINDOW = 1024
VOCABULARY = 1024
LENGTHS = [120, 150, 200, 250, 300, 350, 400]
"""Lengths of the training contexts, in characters / 4: 5 to 23 lines."""
STATED_LINES = (1, 40_000)
"""Half of the openings describe a context of so many lines, drawn uniformly in its logarithm: a reply that sees only
the description must not depend on the length of the context."""
MEASURED_LINES = (20, 200, 2_000, 20_000)
"""Stated lengths at which restating the task is measured."""
FAMILIES = [
    *("most_common", "least_common", "compare", "count", "user_label", "users_count", "month_count"),
    *("users_most_common", "users_least_common", "users_compare"),
]
"""The easy families, and others that select a user: numbers are the hardest to copy."""
PROFILE = {
    "prompt": "tiny",
    "action": "fence",
    "max_turns": 6,
    "max_observation_chars": 400,
    "root": {"temperature": 1.0, "max_tokens": 256},
    "sub": {"temperature": 0.0, "max_tokens": 8},
    "code_timeout": 10.0,
    "renderer": "default",
}


@dataclass(frozen=True)
class Data:
    """All conversations: those to train on, and those held out to measure."""

    sessions: list[list[Message]]
    """Root turns: whole sessions, openings, and the standard scaffold's prompts."""
    readings: list[list[Message]]
    held_out_sessions: list[list[Message]]
    held_out_readings: list[list[Message]]
    held_out_hard_readings: list[list[Message]]
    held_out_openings: dict[int, list[list[Message]]]
    """Keyed by the number of lines that they state."""
    facts: dict[str, float]


def main() -> None:
    options = parse_arguments()
    console = Console(stderr=True)
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    start = time.monotonic()
    with Progress(
        TextColumn("{task.description:34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        data = asyncio.run(make_data(options, progress))
        tokenizer = make_tokenizer(data)
        model, losses = make_model(options, tokenizer, data, progress)
        measured = measure(model, tokenizer, data, options.seed, progress)
    facts = {
        **data.facts,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        **losses,
        **measured,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    save(options, model, tokenizer, facts)
    console.print_json(data=facts)
    console.print(f"tiny-rlm is in {options.out}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the model (default: the shipped one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps")
    parser.add_argument("--sessions", type=int, default=1200, help="sessions recorded in the real REPL")
    parser.add_argument("--openings", type=int, default=4800, help="first replies alone, which see no observation")
    parser.add_argument("--reader-noise", type=float, default=0.0, help="share of wrong labels the reader learns from")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; 1 is faster on a busy machine")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.sessions, options.openings = 80, 120, 480
    if min(options.steps, options.sessions, options.openings, options.threads) < 1:
        parser.error("--steps, --sessions, --openings and --threads must be at least 1")
    if not 0 <= options.reader_noise <= 1:
        parser.error(f"--reader-noise must lie in [0, 1], got {options.reader_noise}")
    return options


async def make_data(options: argparse.Namespace, progress: Progress) -> Data:
    """Tasks, the labels of their lines, recorded sessions, and everything else that is trained on."""
    seed = options.seed
    env_options = {"seed": seed, "vocabulary": "easy", "lengths": LENGTHS, "families": FAMILIES}
    env = rlm_env.load_environment("oolong-rlm", **env_options, **{k: v for k, v in PROFILE.items() if k != "renderer"})
    oracle = reading.LabelOracle()
    labeled = rlm_env.load_environment("oolong-rlm", **env_options, with_labels=True)
    direct = 300
    n = options.sessions + options.openings + direct
    bar = progress.add_task("labels of lines", total=n + HARD_CONTEXTS, note="")
    for task in islice(labeled.tasks("train"), n):
        oracle.learn(task.context)
        progress.advance(bar)
    # Harder wordings, which the environment uses if its option `leak` is below 1.
    harder = reading.LabelOracle()
    labeled = rlm_env.load_environment("oolong-rlm", **env_options | {"leak": 0.0, "lengths": 800}, with_labels=True)
    for task in islice(labeled.tasks("train"), HARD_CONTEXTS):
        harder.learn(task.context)
        progress.advance(bar)

    tasks = list(islice(env.tasks("train"), n))
    bar = progress.add_task("sessions in the REPL", total=options.sessions, note="")
    async with env:
        recorded = await sessions.record_sessions(
            env, tasks[: options.sessions], oracle, seed, on_session=lambda: progress.advance(bar)
        )
    rest = tasks[options.sessions :]
    draw = random.Random(seed)
    openings = [
        sessions.opening(env, task, f"{seed}/opening/{i}", _stated_lines(draw) if i % 2 else None)
        for i, task in enumerate(rest[: options.openings])
    ]
    contexts = [task.context for task in rest[-100:]]
    whole = reading.context_readings(contexts, oracle, draw)
    standard = [
        reading.conversation(env.environment.standard_prompt(task), env.perfect_answer(task))
        for task in rest[options.openings : options.openings + direct - 100]
    ]
    plain = [c for _ in range(PLAIN_REPEATS) for c in reading.label_readings(oracle, options.reader_noise, draw)]
    hard = reading.label_readings(harder, options.reader_noise, draw)
    cut = max(1, options.sessions // 20)
    return Data(
        sessions=[s.messages for s in recorded[cut:]] + openings + standard + whole,
        readings=plain + hard,
        held_out_sessions=[s.messages for s in recorded[:cut]],
        held_out_readings=reading.held_out_readings(oracle),
        held_out_hard_readings=reading.held_out_readings(harder),
        held_out_openings={
            lines: [sessions.opening(env, task, f"{seed}/held-out", lines) for task in islice(env.tasks("eval"), 200)]
            for lines in MEASURED_LINES
        },
        facts={
            "teachers_mean_score": round(fmean(s.score for s in recorded), 3),
            "teachers_share_sound": round(fmean("sound" in s.strategy for s in recorded), 3),
        },
    )


def _stated_lines(draw: random.Random) -> int:
    """A number of lines, uniform in its logarithm."""
    low, high = STATED_LINES
    return round(low * (high / low) ** draw.random())


def make_tokenizer(data: Data) -> PreTrainedTokenizerFast:
    texts = [m["content"] for messages in [*data.sessions, *data.readings] for m in messages]
    return train_tokenizer(texts, VOCABULARY, WINDOW)


def make_model(
    options: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, data: Data, progress: Progress
) -> tuple[Qwen3ForCausalLM, dict[str, float]]:
    """Trains from random weights; returns the model and its last losses."""
    examples: list[Example] = [encode_conversation(tokenizer, messages) for messages in data.sessions]
    assert max(len(ids) for ids, _ in examples) <= WINDOW, "a session is longer than the window: shorten LENGTHS"
    readings = [encode_conversation(tokenizer, messages) for messages in data.readings]
    model = pretrain.new_model(tokenizer, WINDOW, options.seed)
    bar = progress.add_task("training steps", total=options.steps, note="")
    losses: list[tuple[float, float]] = []

    def on_step(step: int, session_loss: float, reading_loss: float) -> None:
        losses.append((session_loss, reading_loss))
        note = f"loss {session_loss:.3f} + {reading_loss:.3f}"
        progress.update(bar, advance=1, note=note)
        if step % 50 == 49:
            progress.console.print(f"step {step + 1:5}: {note}")

    pretrain.train(model, examples, readings, TrainConfig(steps=options.steps), options.seed, on_step)
    last = losses[-20:]
    return model, {
        "loss_sessions": round(fmean(a for a, _ in last), 4),
        "loss_reading": round(fmean(b for _, b in last), 4),
    }


def measure(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Data, seed: int, progress: Progress
) -> dict[str, float | dict[str, float]]:
    """The measurements of the model card, all on held-out conversations."""
    bar = progress.add_task("measuring", total=5, note="")
    greedy = evaluate.reading_accuracy(model, tokenizer, data.held_out_readings, 0.0)
    sampled = evaluate.reading_accuracy(model, tokenizer, data.held_out_readings * 10, 1.0)
    progress.advance(bar)
    hard = evaluate.reading_accuracy(model, tokenizer, data.held_out_hard_readings, 0.0)
    progress.advance(bar)
    held_out = [encode_conversation(tokenizer, messages) for messages in data.held_out_sessions]
    loss = evaluate.held_out_loss(model, held_out)
    progress.advance(bar)
    openings = [messages[:2] for messages in data.held_out_sessions for _ in range(4)]
    well_formed, strategies = evaluate.first_replies(model, tokenizer, openings, seed)
    progress.advance(bar)
    restated = {
        f"{lines:,} lines": round(evaluate.restated(model, tokenizer, openings, seed), 3)
        for lines, openings in data.held_out_openings.items()
    }
    progress.advance(bar)
    return {
        "loss_held_out_sessions": round(loss, 4),
        "reader_accuracy_greedy": round(greedy, 4),
        "reader_accuracy_sampled": round(sampled, 4),
        "reader_accuracy_greedy_hard_wordings": round(hard, 4),
        "well_formed_first_replies": round(well_formed, 4),
        "task_restated": restated,
        "strategies": {name: round(share, 3) for name, share in strategies.items()},
    }


def save(options: argparse.Namespace, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: dict) -> None:
    """Writes the model folder: weights, tokenizer, profile, model card."""
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    (out / FILE_NAME).write_text(json.dumps(PROFILE, indent=2) + "\n", encoding="utf-8")
    load_profile(out)
    record = {
        "seed": options.seed,
        "steps": options.steps,
        "sessions": options.sessions,
        "openings": options.openings,
        "reader_noise": options.reader_noise,
        "threads": options.threads,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"python": platform.python_version(), "rlm-env": rlm_env.__version__},
        **facts,
    }
    card = Path(tiny_rlm.__file__).with_name("card.md").read_text("utf-8")
    (out / "README.md").write_text(card.replace("{record}", json.dumps(record, indent=2)), encoding="utf-8")


if __name__ == "__main__":
    main()
