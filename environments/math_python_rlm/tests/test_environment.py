"""math-python-rlm: bytes, golds solved a second time, attainability, baselines, options."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

import rlm_env
from math_python_rlm import MathPython
from math_python_rlm.baselines import BASELINES
from math_python_rlm.families import STANDARD, TINY
from math_python_rlm.generate import INSTRUCTION
from math_python_rlm.problem import Surd, latex
from rlm_env.rollout import Rollout
from rlm_env.scaffolds import make_scaffold
from rlm_env.scoring import score
from rlm_env.task import Task
from tests.stubs import StubLLM, fenced

pytest.importorskip("math_verify", reason="the extra `math` is not installed")

PER_SPLIT = 46 * 24

# A change here is a change of the benchmark: raise FORMAT and say so in the README.
HASHES = [
    (dict(), "eval", "1d8dd11a74ee59c6"),
    (dict(seed=3), "train", "d86bea1bc017ccf1"),
    (dict(profile="tiny"), "eval", "96876bcaec5a9276"),
]


def digest(tasks: list[Task]) -> str:
    text = "\0".join(f"{task.id}\0{task.context}\0{task.question}\0{task.gold}" for task in tasks)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def stream(n: int = PER_SPLIT, **options: object) -> tuple[MathPython, list[Task]]:
    env = MathPython(**options)
    return env, env.tasks("train").take(n) + env.tasks("eval").take(n)


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    assert digest(MathPython(**options).tasks(split).take(46)) == expected


@pytest.mark.parametrize(
    ("profile", "n"), [("standard", 46 * 4), pytest.param("standard", PER_SPLIT, marks=pytest.mark.slow), ("tiny", 100)]
)
def test_a_second_program_finds_every_gold_by_brute_force(profile: str, n: int):
    _, tasks = stream(n, profile=profile)
    questions = [{"family": t.info["family"], "question": t.question.removeprefix(INSTRUCTION[profile])} for t in tasks]
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("recount_math.py"))],
        input="".join(json.dumps(question) + "\n" for question in questions),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(tasks)
    for task, answer in zip(tasks, found, strict=True):
        assert answer == task.gold, task.question


@pytest.mark.parametrize("scoring", ["official", "strict"])
@pytest.mark.parametrize(("profile", "n"), [pytest.param("standard", PER_SPLIT, marks=pytest.mark.slow), ("tiny", 100)])
def test_perfect_scores_one_empty_zero_another_gold_less(profile: str, n: int, scoring: str):
    env, tasks = stream(n, profile=profile, scoring=scoring, seed=7)
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        assert task.gold
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0, task.gold
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        if other.gold != task.gold:
            wrong = env.score(task, Rollout.from_answer(task, env.perfect_answer(other)))
            assert wrong.value < 1.0, (task.gold, other.gold)


def near(gold: str) -> str:
    """A gold with its last digit changed."""
    place = max(i for i, c in enumerate(gold) if c.isdigit())
    return gold[:place] + str((int(gold[place]) + 1) % 10) + gold[place + 1 :]


def test_a_single_wrong_digit_is_wrong():
    env, tasks = stream(92)
    for task in tasks:
        # math-verify compares fractions by six digits of their value, so those have to differ earlier.
        if task.info["family"] not in ("draws", "dice_sum", "coupons", "ruin", "telescope"):
            answer = f"\\boxed{{{near(task.gold)}}}"
            assert env.score(task, Rollout.from_answer(task, answer)).value == 0.0, task.gold


@pytest.mark.parametrize("scaffold_name", ["standard", "rlm"])
async def test_a_perfect_answer_comes_through_every_scaffold(scaffold_name: str):
    environment = MathPython(seed=1)
    scaffold = make_scaffold(scaffold_name, environment, {"repl": {"preload": ()}, "max_turns": 1})
    try:
        for task in environment.tasks("train").take(23):
            perfect = environment.perfect_answer(task)
            code = fenced(f"answer['content'] = {perfect!r}\nanswer['ready'] = True")
            root = StubLLM(lambda messages, text=perfect if scaffold_name == "standard" else code: text)
            rollout = await scaffold.rollout(task, root)
            assert task.question in root.seen[0][-1]["content"]
            assert score(environment, task, rollout).value == 1.0, (task.gold, rollout.error)
    finally:
        await scaffold.aclose()


def test_every_family_has_its_turn_and_golds_are_hard():
    _, tasks = stream()
    assert Counter(task.info["family"] for task in tasks) == dict.fromkeys(STANDARD, 96)
    assert all(task.context == "" for task in tasks)
    most_common = Counter(task.gold for task in tasks).most_common(1)[0][1]
    assert most_common < 0.01 * len(tasks)
    assert sum(len(task.gold) >= 4 for task in tasks) == len(tasks)


def test_train_and_eval_share_no_problem_whatever_the_seed():
    asked: dict[str, set[str]] = {"train": set(), "eval": set()}
    for seed in range(3):
        for split, questions in asked.items():
            questions |= {task.question for task in MathPython(seed=seed).tasks(split).take(400)}
            questions |= {task.question for task in MathPython(seed=seed, profile="tiny").tasks(split).take(200)}
    assert not asked["train"] & asked["eval"]
    assert len(asked["train"]) > 1600


def test_tasks_start_afresh_and_are_lazy_and_endless():
    tasks = MathPython().tasks("train")
    first = list(islice(iter(tasks), 30))
    assert list(islice(iter(tasks), 30)) == first
    assert len({task.id for task in first}) == 30
    assert len(list(MathPython(num_tasks=5).tasks("eval"))) == 5


def test_families_are_chosen_and_cycled_over():
    tasks = MathPython(families=["ruin", "polygon"]).tasks("eval").take(4)
    assert [task.info["family"] for task in tasks] == ["ruin", "polygon", "ruin", "polygon"]


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["standard", "tiny"])
def test_guessing_scores_nothing(profile: str):
    env, tasks = stream(46, profile=profile)
    for name, answer in BASELINES.items():
        total = sum(env.score(task, Rollout.from_answer(task, answer(task))).value for task in tasks)
        assert total <= 0.03 * len(tasks), name


@pytest.mark.parametrize("scoring", ["official", "strict"])
def test_a_sum_that_is_handed_back_is_no_answer(scoring: str):
    env, tasks = stream(8, profile="tiny", scoring=scoring)
    for task in tasks:
        asked = task.question.removeprefix(INSTRUCTION["tiny"] + "What is ").rstrip("?")
        for answer, value in [(asked, 0.0), (asked.replace("*", "\\times"), 0.0), (f"{asked} = {task.gold}", 1.0)]:
            assert env.score(task, Rollout.from_answer(task, f"\\boxed{{{answer}}}")).value == value, answer


def test_values_are_written_exactly():
    assert latex(-12) == "-12"
    assert latex(Fraction(4, 2)) == "2"
    assert latex(Fraction(-3, 6)) == "-\\frac{1}{2}"
    assert latex(Surd(3, 5)) == "3\\sqrt{5}"
    assert latex(Surd(1, 5)) == "\\sqrt{5}"
    assert latex(Surd(4, 1)) == "4"
    assert latex(frozenset({10, 9})) == "\\{9, 10\\}"


def test_bad_options_are_named_with_the_remedy():
    for options, message in [
        (dict(dataset="gsm8k"), "dataset: 'gsm8k' does not exist; there are generated, hub"),
        (dict(families="topology"), "families: 'topology' does not exist; there are power_remainder"),
        (dict(families="ruin", profile="tiny"), "families: 'ruin' does not exist; there are add"),
        (dict(families=[]), "families must name at least one"),
        (dict(profile="huge"), "profile: 'huge' does not exist"),
        (dict(scoring="mild"), "scoring: 'mild' does not exist"),
        (dict(num_tasks=0), "num_tasks must be at least 1"),
        (dict(revision="main"), "dataset 'generated' has no option revision"),
        (dict(dataset="hub", families="ruin"), "dataset 'hub' has no option families"),
        (dict(dataset="hub", solve_rate=(0.5, 2)), r"solve_rate must be \(low, high\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            MathPython(**options)
    with pytest.raises(ValueError, match="split: 'test' does not exist"):
        MathPython().tasks("test")


def test_it_loads_by_name_and_has_tips():
    env = rlm_env.load_environment("math-python-rlm", seed=2, profile="tiny", max_turns=3)
    assert {task.info["family"] for task in env.tasks("eval").take(8)} == set(TINY)
    assert "Fraction" in env.environment.tips
