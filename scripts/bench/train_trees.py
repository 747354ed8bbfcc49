"""Batches of scripted RLM sessions, and what a step on them costs as trees and flat: rows of `train.py`.

The sessions are real but for who speaks: real environments, prompts, REPL and observations; the replies of root and
sub-LLM are written here, and turned into the token ids that tiny-rlm's tokenizer and template give them. Members of a
group differ in what they say, as samples do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

import rlm_env
from rlm_env.llm.base import LLM, Sampling, ToolSchema
from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.messages import Completion, Message
from rlm_env.rollout import Rollout
from rlm_env.task import Task
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.samples import Sample, rollout_samples
from rlm_env.train.learner.tree_packing import shared_ratio
from rlm_env.train.sft.text_turns import in_students_tokens

WORDS = ("first", "then", "we", "look", "at", "every", "part", "again", "and", "count", "what", "the", "lines", "say")
GUIDE = (
    "You read a part of a longer record. Go through it line by line. For every line decide which of the labels fits it "
    "best, from its words alone, and do not guess where a line says nothing. Count the lines of each label in this "
    "part. Answer with one line per label, the label and its number, and nothing else. The part begins here:\n"
)
SPLIT = "n = {size}\nparts = [context[i:i+n] for i in range(0, len(context), n)][:{calls}]"
ASK = "replies = llm_batch([{prompt} for part in parts])\nprint(len(replies), str(replies[0])[:80])"
DONE = 'answer["content"] = "none"\nanswer["ready"] = True'
NEEDLE = [SPLIT.format(size=600, calls=6), ASK.format(prompt="part + '\\nIs the number here?'"), DONE]
OOLONG = [SPLIT.format(size=200, calls=16), f"guide = {GUIDE!r}\n{ASK.format(prompt='guide + part')}", DONE]
LOOP = [*(f"print(context[{200 * turn}:{200 * turn + 200}])" for turn in range(5)), DONE]
BATCHES: dict[str, tuple[str, list[str]]] = {
    "needle": ("needle-rlm", NEEDLE),
    "oolong, instructions first": ("oolong-rlm", OOLONG),
    "tool loop": ("oolong-rlm", LOOP),
}
"""By name: the environment, and what the root runs turn by turn."""


class Speaker(LLM):
    """Says what is written, after words of its own."""

    name = "speaker"

    def __init__(self, cells: list[str], draw: random.Random) -> None:
        self._cells = cells
        self._draw = draw

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        words = " ".join(self._draw.choices(WORDS, k=self._draw.randint(4, 12)))
        turn = sum(message["role"] == "assistant" for message in messages)
        text = f"{words}\n```repl\n{self._cells[turn]}\n```" if self._cells else words
        return Completion(text, finish_reason="stop")


def batch(folder: Path, environment: str, cells: list[str], tasks: int, size: int) -> list[Sample]:
    """The samples of `tasks` groups of `size` sessions."""
    tokens = ChatTokens(folder)
    env = rlm_env.load_environment(environment, seed=0)

    async def session(task: Task, name: str) -> Rollout:
        draw = random.Random(name)
        return await env.rollout(task, Speaker(cells, draw), Speaker([], draw), id=name)

    async def sessions() -> list[Rollout]:
        drawn = list(islice(env.tasks("train"), tasks))
        return await asyncio.gather(
            *(session(t, f"{n}/{member}") for n, t in enumerate(drawn) for member in range(size))
        )

    rollouts = [in_students_tokens(rollout, tokens)[0] for rollout in asyncio.run(sessions())]
    samples = list(chain.from_iterable(rollout_samples(rollout, temperature=1.0) for rollout in rollouts))
    for sample, advantage in zip(samples, cycle((1.0, -1.0))):
        sample.advantage = advantage
        sample.behavior_logprobs = [-2.0 if own else 0.0 for own in sample.mask]
    return samples


def compared(folder: Path, samples: list[Sample], pack_tokens: int, threads: int, repeats: int) -> dict[str, Any]:
    """Ratios of tokens and of the time of a step, flat to tree, by the clock and in CPU seconds. Steps take turns."""
    ways: dict[str, Any] = {"flat": True, "tree": "tree"}
    learners = {name: _learner(folder, packing, pack_tokens, threads) for name, packing in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    metrics: dict[str, dict[str, float]] = {}
    for number in range(repeats + 1):
        for name, learner in learners.items():
            start, spent = time.perf_counter(), time.process_time()
            metrics[name] = learner.step(samples)
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - spent)
    flat, tree = (metrics[name] for name in ways)
    return {
        "samples": len(samples),
        "tokens": int(flat["tokens_computed"]),
        "tokens_of_trees": int(tree["tokens_computed"]),
        "trained_tokens": int(flat["trained_tokens"]),
        "packs": [int(flat["packs"]), int(tree["packs"])],
        "token_ratio": flat["tokens_computed"] / tree["tokens_computed"],
        "token_ratio_of_one_tree": shared_ratio(samples),
        "flat_s": median(seconds["flat"]),
        "time_ratio": median(seconds["flat"]) / median(seconds["tree"]),
        "flat_cpu_s": median(cpu["flat"]),
        "cpu_ratio": median(cpu["flat"]) / median(cpu["tree"]),
    }


def _learner(folder: Path, packing: Any, pack_tokens: int, threads: int) -> Learner:
    config = ModelConfig(dtype="float32", device="cpu", packing=packing, pack_tokens=pack_tokens, threads=threads)
    return Learner(folder, config, OptimizerConfig(lr=1e-6), LossConfig(), total_steps=100)


def rows(folder: Path, quick: bool, threads: int = 1) -> Iterator[dict[str, Any]]:
    """One row for each batch."""
    torch.set_num_threads(threads)
    for name, (environment, cells) in BATCHES.items():
        samples = batch(folder, environment, cells, *((1, 4) if quick else (2, 8)))
        yield {"batch": name, **compared(folder, samples, 4096, threads, 1 if quick else 3)}
