"""needle-rlm: bytes, lengths, depths, golds, baselines, options."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

import rlm_env
from needle_rlm import Needle
from needle_rlm.baselines import BASELINES
from rlm_env.rollout import Rollout
from rlm_env.task import Task

STREAMS = {
    "standard": dict(lengths=[8_000, 12_000]),
    "tiny": dict(profile="tiny", lengths=[400, 600, 2_000]),
    "many distractors": dict(lengths=10_000, distractors=100, seed=3),
    "none": dict(lengths=8_000, distractors=0),
}
PER_SPLIT = 500

# A change here is a change of the benchmark: raise FORMAT and say so in the README.
HASHES = [
    (dict(), "eval", "3be65179e66bb917"),
    (dict(lengths=[8_000, 50_000], seed=1), "train", "b22f47782f44a3df"),
    (dict(profile="tiny"), "eval", "7640f25159e8922d"),
    (dict(profile="tiny", depths=[0.0, 0.5, 1.0]), "train", "ce0b919106c7a775"),
]


def digest(tasks: list[Task]) -> str:
    text = "\0".join(f"{task.id}\0{task.context}\0{task.question}\0{task.gold}" for task in tasks)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recount(tasks: list[Task]) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("recount_needle.py"))],
        input="".join(json.dumps({"context": t.context, "question": t.question}) + "\n" for t in tasks),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    assert digest(Needle(**options).tasks(split).take(10)) == expected


@pytest.mark.parametrize("scoring", ["official", "strict"])
@pytest.mark.parametrize("name", STREAMS)
def test_perfect_scores_one_empty_zero_another_gold_less(name: str, scoring: str):
    env = Needle(**STREAMS[name], scoring=scoring)
    tasks = env.tasks("train").take(PER_SPLIT) + env.tasks("eval").take(PER_SPLIT)
    told_apart = 0
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        assert task.gold
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        if other.gold != task.gold:
            told_apart += 1
            assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value < 1.0
    assert told_apart > 0.98 * len(tasks)


@pytest.mark.parametrize("name", STREAMS)
def test_a_second_program_finds_exactly_the_gold(name: str):
    env = Needle(**STREAMS[name])
    tasks = env.tasks("train").take(150) + env.tasks("eval").take(150)
    for task, found in zip(tasks, recount(tasks), strict=True):
        assert found == [task.gold], task.question
        assert len(re.findall(rf"\b{task.gold}\b", task.context)) == 1


def test_without_the_needle_there_is_no_answer():
    tasks = Needle(lengths=10_000, distractors=60).tasks("eval").take(30)
    cut = [
        Task(task.question, re.sub(rf"The special magic number for \S+ is {task.gold}\.", "", task.context), task.gold)
        for task in tasks
    ]
    assert recount(cut) == [[]] * len(cut)


@pytest.mark.parametrize(("profile", "length"), [("standard", 8_000), ("standard", 300_000), ("tiny", 400)])
def test_contexts_are_as_long_as_asked(profile: str, length: int):
    for task in Needle(profile=profile, lengths=length).tasks("eval").take(10):
        assert length - 170 <= len(task.context) <= length
        assert task.info["length_characters"] == len(task.context)


@pytest.mark.slow
def test_ten_million_characters_are_held_once():
    tasks = iter(Needle(lengths=10_000_000).tasks("eval"))
    tracemalloc.start()
    try:
        task = next(tasks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 9_999_000 <= len(task.context) <= 10_000_000
    assert task.context.isascii()
    assert peak < 1.3 * len(task.context)


def test_lengths_and_depths_are_cycled_over():
    tasks = Needle(lengths=[20_000, 40_000], depths=[0.0, 0.5, 1.0]).tasks("eval").take(6)
    assert [task.info["target_characters"] for task in tasks] == [20_000, 40_000] * 3
    for task, depth in zip(tasks, [0, 0, 0.5, 0.5, 1, 1], strict=True):
        assert task.info["depth"] == pytest.approx(depth, abs=0.03)


def test_needles_stand_everywhere():
    depths = [task.info["depth"] for task in Needle(lengths=8_000).tasks("train").take(300)]
    assert all(sum(low <= depth < low + 0.25 for depth in depths) > 40 for low in (0, 0.25, 0.5, 0.75))


def test_tasks_start_afresh_and_are_lazy_and_endless():
    tasks = Needle(lengths=8_000).tasks("train")
    first = list(islice(iter(tasks), 3))
    assert list(islice(iter(tasks), 3)) == first
    assert len({task.id for task in tasks.take(20)}) == 20
    assert len(list(Needle(profile="tiny", num_tasks=4).tasks("eval"))) == 4


def test_splits_and_seeds_are_disjoint():
    contexts = {
        task.context
        for seed in (0, 1)
        for split in ("train", "eval")
        for task in Needle(lengths=8_000, seed=seed).tasks(split).take(50)
    }
    assert len(contexts) == 200


def test_reading_is_needed():
    """Baselines that do not understand the sentence stay low; only RULER's scoring rewards listing everything."""
    env = Needle(lengths=100_000)
    tasks = env.tasks("eval").take(60)

    def mean(name: str, scoring: str) -> float:
        scores = (env.score(t, Rollout.from_answer(t, BASELINES[name](t))).metrics[scoring] for t in tasks)
        return sum(scores) / len(tasks)

    assert mean("keyword", "strict") < 0.15
    assert mean("random", "strict") < 0.1
    assert mean("majority", "strict") < 0.1
    assert mean("label dump", "strict") == 0.0
    assert mean("no context", "strict") == 0.0
    assert mean("list everything", "strict") == 0.0
    assert mean("list everything", "official") == 1.0
    assert mean("first match", "strict") < 0.5


def test_bad_options_are_named_with_the_remedy():
    for options, message in [
        (dict(lengths=0), "lengths must be one or more positive whole numbers"),
        (dict(lengths=[]), "lengths must be one or more positive whole numbers"),
        (dict(depths=1.5), r"depths must be one or more shares in \[0, 1\] or None, got 1.5"),
        (dict(depths=[]), "depths must be"),
        (dict(distractors=-1), "distractors must be at least 0"),
        (dict(num_tasks=0), "num_tasks must be at least 1"),
        (dict(profile="huge"), "profile: 'huge' does not exist; there are standard, tiny"),
        (dict(scoring="mild"), "scoring: 'mild' does not exist"),
    ]:
        with pytest.raises(ValueError, match=message):
            Needle(**options)
    with pytest.raises(ValueError, match=r"lengths: 200 characters are too few .* use \d+ or more"):
        Needle(lengths=200).tasks("eval").take(1)
    with pytest.raises(ValueError, match="split: 'test' does not exist"):
        Needle().tasks("test")
    with pytest.raises(TypeError, match="depth"):
        Needle(depth=0.5)


def test_it_loads_by_name_and_has_tips():
    env = rlm_env.load_environment("needle-rlm", seed=2, profile="tiny", max_turns=3)
    assert env.environment.profile == "tiny"
    assert env.environment.name == "needle-rlm"
    assert "distractors" in env.environment.tips
