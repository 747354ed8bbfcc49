"""Oolong-Pairs: golds recounted by a second program, attainable, selective, growing with the square of the users."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from statistics import mean

import pytest

import oolong_rlm
import rlm_env
from oolong_rlm import Oolong, OolongPairs
from oolong_rlm.hub_pairs import LABELS, QUERIES, pair_tasks, query_text
from oolong_rlm.pairs import MAX_SHARE, PAIR_FAMILIES, Dated, Need, Pairs, Role, gather
from rlm_env.rollout import Rollout
from rlm_env.task import Task

STREAMS = {
    "easy": dict(vocabulary="easy", lines=[8, 16, 40]),
    "easy, hard frames": dict(vocabulary="easy", leak=0.0, lengths=[400, 900]),
    "standard": dict(lengths=[1024, 4096]),
    "standard, with labels": dict(lengths=[2048], with_labels=True, seed=3),
}
HERE = Path(__file__).parent
VOCABULARIES = Path(oolong_rlm.__file__).parent / "data" / "vocabularies"

# A change here is a change of the benchmark: raise FORMAT in `synth.py` and say so in the README.
HASHES = [
    (dict(vocabulary="easy", lines=[8, 32]), "train", "153586daa8cc0a5f"),
    (dict(lengths=[1024, 8192]), "eval", "025a8594d60cedd7"),
    (dict(lengths=2048, families="one_and_other_exactly", seed=1), "eval", "09f7800625b057a8"),
]


@cache
def stream(name: str, n: int = 100) -> tuple[OolongPairs, list[Task]]:
    env = OolongPairs(**STREAMS[name])
    return env, env.tasks("train").take(n) + env.tasks("eval").take(n)


def pairs_of(gold: str) -> list[list[int]]:
    return [[int(a), int(b)] for a, b in re.findall(r"^\((\d+), (\d+)\)$", gold, re.M)]


def recount(tasks: Iterable[tuple[str, str, str]]) -> list[list[list[int]]]:
    """(context, question, vocabulary) of many tasks -> the pairs that the second program finds."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(HERE / "recount_pairs.py"), str(VOCABULARIES)],
        input="".join(json.dumps({"context": c, "question": q, "vocabulary": v}) + "\n" for c, q, v in tasks),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    tasks = OolongPairs(**options).tasks(split).take(20)
    text = "\0".join(f"{task.id}\0{task.context}\0{task.question}\0{task.gold}" for task in tasks)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == expected


@pytest.mark.parametrize("name", STREAMS)
def test_a_second_program_finds_every_gold(name: str):
    _, tasks = stream(name)
    found = recount((task.context, task.question, task.info["vocabulary"]) for task in tasks)
    for task, pairs in zip(tasks, found, strict=True):
        assert pairs == pairs_of(task.gold), task.question


@pytest.mark.parametrize("scoring", ["official", "strict"])
@pytest.mark.parametrize("name", STREAMS)
def test_perfect_scores_one_empty_zero_another_gold_less(name: str, scoring: str):
    env, tasks = OolongPairs(**STREAMS[name], scoring=scoring), stream(name)[1]
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        assert task.gold
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        assert env.score(task, Rollout.from_answer(task, "There are no such pairs.")).value == 0.0
        if other.gold != task.gold:
            assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value < 1.0


def test_golds_are_a_minority_of_all_pairs_lower_id_first_and_in_order():
    for name in STREAMS:
        for task in stream(name)[1]:
            users = set(map(int, re.findall(r"User: (\d+)", task.context)))
            pairs = pairs_of(task.gold)
            assert 0 < len(pairs) <= MAX_SHARE * len(users) * (len(users) - 1) / 2
            assert len(pairs) == task.gold.count("\n") + 1
            assert pairs == sorted(pairs)
            assert all(a < b and {a, b} <= users for a, b in pairs)


@pytest.mark.parametrize("options", [dict(), dict(vocabulary="easy")])
def test_answers_grow_with_the_square_of_the_users(options: dict):
    sizes, users = [], []
    for lines in (60, 240):
        tasks = OolongPairs(**options, lines=lines).tasks("eval").take(60)
        sizes.append(mean(len(pairs_of(task.gold)) for task in tasks))
        users.append(mean(len(set(re.findall(r"User: (\d+)", task.context))) for task in tasks))
    growth = users[1] / users[0]
    assert growth > 2.5
    assert 0.5 * growth**2 < sizes[1] / sizes[0] < 2 * growth**2


@pytest.mark.parametrize("name", ["easy", "standard"])
def test_shuffling_the_lines_changes_no_gold(name: str):
    rng, shuffled = random.Random(0), []
    tasks = stream(name, 60)[1]
    for task in tasks:
        lines = task.context.split("\n")
        places = [i for i, line in enumerate(lines) if line.startswith("Date: ")]
        moved = lines[:]
        for to, source in zip(places, rng.sample(places, len(places)), strict=True):
            moved[to] = lines[source]
        shuffled.append(("\n".join(moved), task.question, task.info["vocabulary"]))
    assert [pairs_of(task.gold) for task in tasks] == recount(shuffled)


@pytest.mark.parametrize("name", ["easy", "standard"])
def test_renaming_users_permutes_the_pairs(name: str):
    rng, renamed, expected = random.Random(1), [], []
    tasks = stream(name, 60)[1]
    for task in tasks:
        users = sorted(set(map(int, re.findall(r"User: (\d+)", task.context))))
        table = dict(zip(users, rng.sample(users, len(users)), strict=True))
        context = re.sub(r"(?<=User: )\d+", lambda m, table=table: str(table[int(m[0])]), task.context)
        renamed.append((context, task.question, task.info["vocabulary"]))
        expected.append(sorted(sorted((table[a], table[b])) for a, b in pairs_of(task.gold)))
    assert recount(renamed) == expected


def test_every_family_is_asked_and_may_be_chosen():
    names = set(PAIR_FAMILIES["pairs"])
    assert {task.info["family"] for task in stream("standard")[1]} == names
    for name in names:
        for options in (dict(vocabulary="easy", lines=8), dict(lengths=1024), dict(lengths=32_768)):
            tasks = OolongPairs(**options, families=name).tasks("eval").take(3)
            assert {task.info["family"] for task in tasks} == {name}
    with pytest.raises(ValueError, match="families: 'count' does not exist; there are the groups pairs"):
        OolongPairs(families="count")


def test_conditions_mean_what_they_say():
    day = date(2023, 3, 1)
    users = gather(
        [(day, 1, "a"), (day, 1, "b"), (day, 2, "a"), (day + timedelta(1), 3, "b"), (day, 4, "c"), (day, 4, "c")]
    )

    def find_pairs(*roles: Role) -> list[tuple[int, int]]:
        found = Pairs(users, *roles)
        pairs = [(id, other) for id, others in found for other in others]
        assert len(found) == len(pairs) == str(found).count("(")
        return pairs

    a, b = Need("a"), Need("b")
    assert find_pairs(Role((a, b), any_of=True)) == [(1, 2), (1, 3), (2, 3)]
    assert find_pairs(Role((a, b))) == []
    assert find_pairs(Role((a, b), Dated("b", "after", day), any_of=True)) == [(2, 3)]
    assert find_pairs(Role((a,), Dated("a", "before", day + timedelta(1)))) == [(1, 2)]
    assert find_pairs(Role((a,)), Role((b,))) == [(1, 2), (1, 3), (2, 3)]
    assert find_pairs(Role((a, b)), Role((a,))) == [(1, 2)]
    assert find_pairs(Role((a,)), Role((Need("c", 1, exactly=True),))) == []
    assert find_pairs(Role((a,)), Role((Need("c", 2, exactly=True),))) == [(1, 4), (2, 4)]


def test_a_long_context_and_its_pairs_are_not_held_twice():
    env = OolongPairs(lengths=262_144)
    tasks = iter(env.tasks("eval"))
    next(tasks)
    tracemalloc.start()
    try:
        task = next(tasks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pairs_of(task.gold)) > 1000
    assert peak < 2 * (len(task.context) + len(task.gold))


def test_both_names_load_it():
    for env in (
        rlm_env.load_environment("oolong-pairs-rlm", seed=2, lengths=1024),
        rlm_env.load_environment("oolong-rlm", seed=2, dataset="pairs", lengths=1024),
    ):
        assert [task.info["subset"] for task in env.tasks("eval").take(2)] == ["pairs", "pairs"]
    assert OolongPairs(lengths=1024).tasks("eval").take(5) == Oolong(dataset="pairs", lengths=1024).tasks("eval").take(
        5
    )


def published_window(lines: int, seed: int = 0) -> dict:
    """A row as published, of the six labels of trec_coarse."""
    rng = random.Random(seed)
    texts, labeled = [], []
    for i in range(lines):
        day = date(2022, 11, 1) + timedelta(rng.randrange(300))
        line = f"Date: {day:%b %d, %Y} || User: {rng.randrange(10, 10 + lines // 4)} || Instance: What is {i} ?"
        texts.append(line)
        labeled.append(f"{line} || Label: {rng.choice(LABELS)}")
    return {
        "context_len": 1024,
        "context_window_id": 5,
        "dataset": "trec_coarse",
        "context_window_text": "\n".join(texts),
        "context_window_text_with_labels": "\n".join(labeled),
    }


def test_the_published_questions_are_recounted_from_their_words():
    seen = set()
    for seed, lines in enumerate((40, 60, 120)):
        row = published_window(lines, seed)
        tasks = list(pair_tasks(row, with_labels=False))
        seen |= {task.info["family"] for task in tasks}
        found = recount((row["context_window_text_with_labels"], task.question, "") for task in tasks)
        for task, pairs in zip(tasks, found, strict=True):
            assert pairs == pairs_of(task.gold), task.question
            assert " || Label: " not in task.context
    assert len(seen) == len(QUERIES) == 20
    assert len({query_text(*query) for query in QUERIES}) == 20


def test_lines_that_are_not_as_published_are_refused():
    row = published_window(20)
    row["context_window_text_with_labels"] = row["context_window_text_with_labels"].replace(LABELS[1], "animal")
    with pytest.raises(ValueError, match="window 5: its lines are not dated, signed and labeled as expected"):
        list(pair_tasks(row, with_labels=False))
