"""deepdive-rlm: bytes, golds, the proof that there is one answer, attainability, baselines, options."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from read_question import Read, read_question
from read_web import plain_lines, read_page

import rlm_env
from deepdive_rlm import DeepDive
from deepdive_rlm.baselines import BASELINES
from deepdive_rlm.pages import make_page
from deepdive_rlm.query import answers, value_of, walks
from deepdive_rlm.questions import SHORTCUT
from deepdive_rlm.schema import OBJECTS
from rlm_env.rollout import Rollout
from rlm_env.task import Task

WORDS = {clue: word for word, clue in OBJECTS}
STREAMS = {
    "standard": dict(),
    "plain": dict(obfuscate=False, hops=3, seed=4),
    "tiny": dict(profile="tiny"),
    "tiny worlds": dict(profile="tiny", hops=[1, 2], tasks_per_world=5),
}

# A change here is a change of the benchmark: raise FORMAT and say so in the README.
HASHES = [
    (dict(), "eval", "31f8433cdf37fd8e"),
    (dict(hops=[1, 5], seed=1, obfuscate=False), "train", "b6e44f3fb1a4eea3"),
    (dict(profile="tiny"), "eval", "4c321e84ccdb4c59"),
    (dict(profile="tiny", tasks_per_world=2), "train", "a92cc7cbbf928107"),
]


@cache
def made(name: str) -> tuple[DeepDive, list[Task], list[Task]]:
    """The environment of a stream with tasks of both splits, made once for all tests."""
    env = DeepDive(**STREAMS[name])
    return env, env.tasks("train").take(60), env.tasks("eval").take(120)


def digest(env: DeepDive, tasks: list[Task]) -> str:
    sha = hashlib.sha256()
    for world in sorted({task.info["world"] for task in tasks}):
        for thing in env.source.world(world):
            sha.update(make_page(env.source.world(world), thing).html.encode())
    for task in tasks:
        sha.update(f"{task.id}\0{task.question}\0{task.gold}\0{task.info}".encode())
    return sha.hexdigest()[:16]


def read_world(env: DeepDive, name: str) -> Read:
    world = env.source.world(name)
    pages = (make_page(world, thing) for thing in world)
    return Read({page.url: read_page(plain_lines(page.html, page.url)) for page in pages})


def value(env: DeepDive, task: Task, answer: str) -> float:
    return env.score(task, Rollout.from_answer(task, answer)).value


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    env = DeepDive(**options)
    assert digest(env, env.tasks(split).take(10)) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_perfect_scores_one_empty_zero_another_gold_less(name: str):
    env, train, evals = made(name)
    tasks = train + evals
    told_apart = 0
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        assert task.gold
        assert value(env, task, env.perfect_answer(task)) == 1.0
        assert all(value(env, task, f"Answer: {alias}") == 1.0 for alias in task.info["aliases"])
        assert value(env, task, "") == 0.0
        if other.gold != task.gold:
            told_apart += 1
            assert value(env, task, env.perfect_answer(other)) == 0.0
    assert told_apart > 0.9 * len(tasks)


@pytest.mark.parametrize("name", ["standard", "plain", "tiny"])
def test_a_second_program_finds_the_gold_and_no_other_and_nothing_without_a_page(name: str):
    """Pages and questions are read anew, by their words; every walk through the whole web is tried."""
    env, _, tasks = made(name)
    tasks = tasks[:80]
    assert {task.info["world"] for task in tasks} == {"eval-0"}
    web = read_world(env, "eval-0")
    for task in tasks:
        steps, asked = read_question(task.question, WORDS)
        (found,) = web.answers(steps, asked)
        assert value(env, task, f"Answer: {found}") == 1.0, task
        for url in task.info["evidence"]:
            assert web.answers(steps, asked, without=url) == set(), f"{task.question} without {url}"


def test_the_generators_proof_holds_and_no_step_can_be_skipped():
    env = DeepDive(hops=[2, 3, 4, 5])
    for index in range(40):
        world, question = env.source.question("train", index)
        assert list(walks(world, question.query)) == [question.walk]
        last = world.things[question.walk[-1]]
        assert answers(world, question.query) == {value_of(last, question.query.asked)}
        for id in question.evidence:
            assert list(answers(world, question.query, without={id})) == []
        for later in range(1, len(question.walk)):
            assert len(answers(world, question.query.from_step(later))) >= SHORTCUT


def test_near_equal_things_are_everywhere():
    """Most questions have several things that share the first clue, and every thing one that is called nearly so."""
    env = DeepDive()
    shared = 0
    for index in range(60):
        world, question = env.source.question("eval", index)
        habit = next(c for c in question.query.steps[0].conditions if c.attribute == "habit")
        shared += sum(habit.holds(thing) for thing in world.kinds[question.query.steps[0].kind]) > 1
    assert shared > 55
    assert all(thing.similar not in (None, thing.id) for thing in world)
    assert len({thing.name for thing in world}) < len({thing.title for thing in world}) == len(world.things)


def test_webs_are_as_large_as_said_and_pages_give_their_first_sentence_only_to_searches():
    env = DeepDive()
    world = env.source.world("eval-0")
    assert len(world.things) == 3704
    assert len({thing.slug for thing in world}) == 3704
    for thing in list(world)[::50]:
        page = make_page(world, thing)
        assert not any(c.isdigit() for c in page.lead)
        assert "<a" not in page.lead


def test_hops_are_cycled_over_and_worlds_change():
    tasks = DeepDive(profile="tiny", hops=[1, 2], tasks_per_world=3).tasks("train").take(7)
    assert [task.info["hops"] for task in tasks] == [1, 2, 1, 2, 1, 2, 1]
    assert [task.info["world"] for task in tasks] == ["train-0"] * 3 + ["train-1"] * 3 + ["train-2"]


def test_tasks_start_afresh_and_splits_and_seeds_are_disjoint():
    tasks = DeepDive(profile="tiny").tasks("train")
    assert tasks.take(3) == tasks.take(3)
    urls = {
        url
        for seed in (0, 1)
        for split in ("train", "eval")
        for task in DeepDive(seed=seed).tasks(split).take(25)
        for url in [task.info["evidence"][0].partition("/wiki/")[2]]
    }
    assert len(urls) > 90
    assert len(list(DeepDive(profile="tiny", num_tasks=4).tasks("eval"))) == 4


def test_without_the_web_there_is_no_answer():
    env, _, tasks = made("standard")
    for name, baseline in BASELINES.items():
        assert sum(value(env, task, baseline(task)) for task in tasks) / len(tasks) <= 0.01, name


def test_the_question_names_nothing_that_is_on_a_page_of_the_walk():
    for task in made("standard")[2]:
        for url in task.info["evidence"]:
            title = url.rpartition("/")[2].replace("-", " ")
            assert title not in task.question.lower()


def test_bad_options_are_named_with_the_remedy():
    for options, message in [
        (dict(hops=0), "hops must be one or more positive whole numbers"),
        (dict(tasks_per_world=0), "tasks_per_world must be one or more"),
        (dict(num_tasks=0), "num_tasks must be at least 1"),
        (dict(profile="huge"), "profile: 'huge' does not exist; there are standard, tiny"),
        (dict(dataset="web"), "dataset: 'web' does not exist"),
        (dict(api_key_env="KEY"), "dataset 'generated' has no option api_key_env"),
        (dict(dataset="hub", hops=2), "dataset 'hub' has no option hops"),
        (dict(judge_mode="kind"), "judge_mode: 'kind' does not exist"),
        (dict(judge_cache="x.jsonl"), "judge_cache: there is no judge"),
    ]:
        with pytest.raises(ValueError, match=message):
            DeepDive(**options)
    with pytest.raises(ValueError, match="split: 'test' does not exist"):
        DeepDive().tasks("test")
    with pytest.raises(RuntimeError, match="no question of 40 hops"):
        DeepDive(profile="tiny", hops=40).tasks("eval").take(1)


def test_it_loads_by_name_and_has_tips():
    env = rlm_env.load_environment("deepdive-rlm", seed=2, profile="tiny", max_turns=3)
    assert env.environment.source.profile == "tiny"
    assert env.environment.name == "deepdive-rlm"
    assert "barometer" in env.environment.tips
