"""Generated repositories: bytes, sizes, golds found a second time by executing, baselines, changes of the context."""

from __future__ import annotations

import hashlib
import random
import re
import tracemalloc
from collections import Counter
from functools import cache
from itertools import islice

import pytest

from codeqa_rlm import CodeQA
from codeqa_rlm.baselines import BASELINES, OPTION, options_of
from codeqa_rlm.questions import FAMILIES
from rlm_env.rollout import Rollout
from rlm_env.task import Task

STREAMS = {
    "standard": dict(lengths=[1000, 4000]),
    "many files": dict(lengths=6000, files_per_context=20, seed=7),
    "tiny": dict(profile="tiny", lengths=[180, 240]),
    "digits": dict(lengths=1500, choices="0123", seed=3),
}
PER_SPLIT = 150
MOST = {"standard": 500, "tiny": 500}
RUN = {"standard": 80, "many files": 24, "tiny": 100, "digits": 24}
"""Tasks of a split whose code is run."""

# A change here is a change of the benchmark: raise FORMAT and say so in the README.
HASHES = [
    (dict(), "eval", "2ad281cf596eb356"),
    (dict(lengths=[1000, 60_000], seed=1), "train", "ff3b1385b6cb9fc5"),
    (dict(profile="tiny"), "eval", "e0de8bb1f19adc95"),
]


def digest(tasks: list[Task]) -> str:
    parts = [
        part for t in tasks for part in (t.id, t.question, t.gold, *(s for file in t.context.items() for s in file))
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def drawn(name: str) -> list[list[Task]]:
    """The first tasks of each split, as many as any test reads."""
    env = CodeQA(**STREAMS[name])
    return [env.tasks(split).take(MOST.get(name, PER_SPLIT)) for split in ("train", "eval")]


def stream(name: str, n: int = PER_SPLIT, scoring: str = "official") -> tuple[CodeQA, list[Task]]:
    return CodeQA(**STREAMS[name], scoring=scoring), [task for tasks in drawn(name) for task in tasks[:n]]


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    assert digest(CodeQA(**options).tasks(split).take(16)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_running_the_code_finds_exactly_the_gold(name: str, recount):
    _, tasks = stream(name, RUN[name])
    for task, found in zip(tasks, recount((t.context, t.question) for t in tasks), strict=True):
        assert found == [task.gold], (task.id, task.info["family"], task.question)


def test_running_a_large_repository_finds_exactly_the_gold(recount):
    tasks = CodeQA(lengths=40_000).tasks("eval").take(8)
    assert recount((t.context, t.question) for t in tasks) == [[t.gold] for t in tasks]


@pytest.mark.parametrize("scoring", ["official", "strict"])
@pytest.mark.parametrize("name", STREAMS)
def test_perfect_scores_one_empty_zero_another_gold_zero(name: str, scoring: str):
    env, tasks = stream(name, scoring=scoring)
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        if other.gold != task.gold:
            assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value == 0.0


@pytest.mark.parametrize("name", ["standard", "tiny"])
def test_no_letter_and_no_length_gives_the_answer_away(name: str):
    """One in four, within four standard errors."""
    env, tasks = stream(name, 500)
    margin = 4 * (0.25 * 0.75 / len(tasks)) ** 0.5
    for baseline in ("random letter", "majority letter", "longest option", "shortest option"):
        scores = [env.score(t, Rollout.from_answer(t, BASELINES[baseline](t))).value for t in tasks]
        assert sum(scores) / len(scores) == pytest.approx(0.25, abs=margin), baseline
    for count in Counter(task.gold for task in tasks).values():
        assert count / len(tasks) == pytest.approx(0.25, abs=margin)


def test_without_the_context_nothing_is_scored_and_names_alone_do_not_suffice():
    env, tasks = stream("standard")
    mean = {
        name: sum(env.score(t, Rollout.from_answer(t, BASELINES[name](t))).value for t in tasks) / len(tasks)
        for name in ("keyword", "list everything", "no context")
    }
    assert mean["no context"] == 0.0
    assert mean["keyword"] < 0.5
    assert mean["list everything"] < 0.35


@pytest.mark.parametrize("name", STREAMS)
def test_options_are_four_and_different(name: str):
    _, tasks = stream(name)
    for task in tasks:
        options = options_of(task)
        assert [choice for choice, _ in options] == list(task.info["choices"])
        assert len({text for _, text in options}) == 4
        assert task.gold in task.info["choices"]


def test_every_family_is_asked_in_turn():
    tasks = CodeQA(lengths=[1000, 2000]).tasks("eval").take(32)
    assert [task.info["family"] for task in tasks] == [family for family in FAMILIES for _ in range(2)] * 2
    assert {task.info["family"] for task in CodeQA(families="chain").tasks("eval").take(3)} == {"chain"}


def renamed(task: Task, rng: random.Random) -> tuple[dict[str, str], str]:
    """The task with its classes, functions and methods under other names, exchanged among each other."""
    text = "\n".join(task.context.values())
    words: dict[str, str] = {}
    for pattern in (r"^class (\w+)", r"^ *def (\w+)"):
        names = sorted(set(re.findall(pattern, text, re.M)))
        words |= dict(zip(names, rng.sample(names, len(names)), strict=True))

    def swap(text: str) -> str:
        return re.sub(r"\w+", lambda word: words.get(word[0], word[0]), text)

    assert any(word != new for word, new in words.items())
    return {path: swap(content) for path, content in task.context.items()}, swap(task.question)


def test_renaming_identifiers_permutes_the_names_and_keeps_the_letter(recount):
    rng = random.Random(0)
    _, tasks = stream("standard", 32)
    assert recount(renamed(task, rng) for task in tasks) == [[task.gold] for task in tasks]


def test_the_order_of_files_and_options_changes_no_answer(recount):
    rng = random.Random(1)
    _, tasks = stream("standard", 32)
    shuffled, expected = [], []
    for task in tasks:
        files = list(task.context.items())
        rng.shuffle(files)
        options = OPTION.findall(task.question)
        texts = [text for _, text in options]
        rng.shuffle(texts)
        lines = "\n".join(f"({choice}) {text}" for (choice, _), text in zip(options, texts, strict=True))
        head, _, tail = task.question.split("\n\n")
        shuffled.append((dict(files), f"{head}\n\n{lines}\n\n{tail}"))
        right = dict(options)[task.gold]
        expected.append([options[texts.index(right)][0]])
    assert recount(shuffled) == expected


@pytest.mark.parametrize(("profile", "length"), [("standard", 1000), ("standard", 120_000), ("tiny", 240)])
def test_contexts_are_as_long_as_asked(profile: str, length: int):
    for task in CodeQA(profile=profile, lengths=length).tasks("eval").take(6):
        size = sum(len(path) + len(text) for path, text in task.context.items())
        assert 4 * length - 1200 <= size <= 4 * length
        assert task.info["length_characters"] == size


def test_the_number_of_files_is_about_what_is_asked():
    for wanted in (5, 40):
        for task in CodeQA(lengths=20_000, files_per_context=wanted).tasks("eval").take(4):
            modules = [path for path in task.context if not path.endswith("__init__.py")]
            assert wanted * 0.5 <= len(modules) <= wanted * 1.5 + 2


def test_a_tiny_task_fits_the_window_of_the_tiny_model():
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    import rlm_env

    folder = next(iter(rlm_env.__path__))
    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/models/tiny-rlm/tokenizer.json")
    env = CodeQA(profile="tiny")
    for task in env.tasks("eval").take(60):
        assert len(tokenizer.encode(env.standard_prompt(task)).ids) <= 960


def test_a_long_context_is_held_once_beside_its_model():
    tasks = iter(CodeQA(lengths=250_000).tasks("eval"))
    next(tasks)
    tracemalloc.start()
    try:
        task = next(tasks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert task.info["length_tokens"] > 249_000
    assert peak < 5 * task.info["length_characters"]


def test_tasks_start_afresh_are_lazy_endless_and_apart():
    tasks = CodeQA(lengths=1000).tasks("train")
    first = list(islice(iter(tasks), 3))
    assert list(islice(iter(tasks), 3)) == first
    assert len(list(CodeQA(profile="tiny", num_tasks=4).tasks("eval"))) == 4
    drawn = [t for seed in (0, 1) for s in ("train", "eval") for t in CodeQA(lengths=1000, seed=seed).tasks(s).take(40)]
    assert len({digest([task]) for task in drawn}) == 160
    assert len({"".join(task.context.values()) for task in drawn}) == 160
    assert "gold" not in {key for task in drawn for key in task.info}
