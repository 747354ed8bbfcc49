"""Golds are attainable, distinguishable, equal to a second program's, and follow changes of the context."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache

import pytest

from oolong_rlm import Oolong
from rlm_env.rollout import Rollout
from rlm_env.task import Task

STREAMS = {
    "easy": dict(vocabulary="easy", lengths=[120, 250, 1000]),
    "easy, hard frames": dict(vocabulary="easy", leak=0.0, lengths=[200, 600]),
    "standard": dict(lengths=[1024, 2048, 8192]),
    "standard, with labels": dict(lengths=[1024, 4096], with_labels=True),
    "standard, half leaked": dict(lengths=[2048], leak=0.5, seed=7),
}
PER_SPLIT = 300
MOST = {"standard": 1500}


@cache
def drawn(name: str) -> list[list[Task]]:
    """The first tasks of each split, as many as any test reads."""
    env = Oolong(**STREAMS[name])
    return [env.tasks(split).take(MOST.get(name, PER_SPLIT)) for split in ("train", "eval")]


def stream(name: str, n: int = PER_SPLIT, **more: object) -> tuple[Oolong, list[Task]]:
    return Oolong(**STREAMS[name], **more), [task for tasks in drawn(name) for task in tasks[:n]]


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ["official", "strict"])
@pytest.mark.parametrize("name", STREAMS)
def test_perfect_scores_one_empty_zero_another_gold_less(name: str, scoring: str):
    env, tasks = stream(name, scoring=scoring)
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        perfect = env.perfect_answer(task)
        assert env.score(task, Rollout.from_answer(task, perfect)).value == 1.0, (task.question, perfect)
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        assert task.gold not in ("", "[]", "['']", "[None]")
        if other.gold != task.gold:
            assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value < 1.0


@pytest.mark.parametrize("n", [100, pytest.param(PER_SPLIT, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STREAMS)
def test_a_second_program_finds_every_gold(name: str, n: int, recount, read_gold):
    _, tasks = stream(name, n)
    found = recount((task.context, task.question, task.info["vocabulary"]) for task in tasks)
    assert len(found) == len(tasks)
    for task, gold in zip(tasks, found, strict=True):
        assert gold == read_gold(task.gold), (task.id, task.question)


def test_every_family_is_asked_and_the_rare_ones_are_recounted(recount, read_gold):
    _, tasks = stream("standard", n=1500)
    families = Counter(task.info["family"] for task in tasks)
    assert len(families) == 30
    assert {task.info["answer_type"] for task in tasks} == {
        "LABEL", "NUMERIC", "COMPARISON", "USER", "DATE", "MONTH_YEAR"
    }  # fmt: skip
    rare = [task for task in tasks if task.info["family"] in ("date_most", "date_second", "user_second")]
    found = recount((task.context, task.question, task.info["vocabulary"]) for task in rare)
    assert found == [read_gold(task.gold) for task in rare]


@pytest.mark.parametrize("n", [60, pytest.param(150, marks=pytest.mark.slow)])
def test_shuffling_the_lines_changes_no_gold(n: int, recount, read_gold):
    _, tasks = stream("standard", n)
    rng = random.Random(0)
    shuffled = []
    for task in tasks:
        lines = task.context.split("\n")
        places = [i for i, line in enumerate(lines) if line.startswith("Date: ")]
        order = places[:]
        rng.shuffle(order)
        moved = lines[:]
        for to, source in zip(places, order, strict=True):
            moved[to] = lines[source]
        assert moved != lines
        shuffled.append(("\n".join(moved), task.question, task.info["vocabulary"]))
    for task, gold in zip(tasks, recount(shuffled), strict=True):
        assert gold == read_gold(task.gold)


@pytest.mark.parametrize("n", [60, pytest.param(150, marks=pytest.mark.slow)])
def test_renaming_users_renames_the_answers_and_nothing_else(n: int, recount, read_gold):
    _, tasks = stream("standard", n)
    rng = random.Random(1)
    renamed, names = [], []
    for task in tasks:
        users = sorted(set(re.findall(r"User: (\d+)", task.context)))
        targets = users[:]
        rng.shuffle(targets)
        table = dict(zip(users, targets, strict=True))

        def swap(match: re.Match, table: dict = table) -> str:
            return table.get(match[0], match[0])

        context = re.sub(r"(?<=User: )\d+", swap, task.context)
        renamed.append((context, re.sub(r"\b\d{5}\b", swap, task.question), task.info["vocabulary"]))
        names.append(table)
    for task, gold, table in zip(tasks, recount(renamed), names, strict=True):
        expected = read_gold(task.gold)
        if task.info["answer_type"] == "USER":
            expected = [int(table[str(expected[0])])]
        assert gold == expected, task.question
