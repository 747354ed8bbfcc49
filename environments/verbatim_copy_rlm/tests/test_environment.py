"""verbatim-copy-rlm: bytes, texts, golds, what scaffolds are shown, options."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import islice

import pytest

import rlm_env
from rlm_env.rollout import Rollout
from rlm_env.scaffolds import SCAFFOLDS, make_scaffold
from rlm_env.scoring import score
from rlm_env.task import Task
from tests.stubs import StubLLM, fenced
from verbatim_copy_rlm import VerbatimCopy
from verbatim_copy_rlm.baselines import BASELINES, CHANGES, SLIPS
from verbatim_copy_rlm.environment import METRICS, TAGS
from verbatim_copy_rlm.texts import KINDS

STREAMS = {
    "standard": dict(lengths=[500, 1000]),
    "fragmented": dict(lengths=600, fragment=20),
    "tiny": dict(profile="tiny"),
    "long": dict(lengths=16_384, seed=5),
}
PER_SPLIT = {"standard": 500, "fragmented": 500, "tiny": 500, "long": 24}

# A change here is a change of the benchmark: raise FORMAT and say so in the README.
HASHES = [
    (dict(), "eval", "7d965881440e422b"),
    (dict(lengths=1000, fragment=15, seed=2), "train", "c39c68e52185aeee"),
    (dict(profile="tiny"), "eval", "97d1ff6a32424c19"),
]


def digest(tasks: list[Task]) -> str:
    text = "\0".join(f"{task.id}\0{task.context}\0{task.question}\0{task.gold}" for task in tasks)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def drawn(name: str) -> list[Task]:
    env = VerbatimCopy(**STREAMS[name])
    return env.tasks("train").take(PER_SPLIT[name]) + env.tasks("eval").take(PER_SPLIT[name])


def stream(name: str, **more: object) -> tuple[VerbatimCopy, list[Task]]:
    return VerbatimCopy(**STREAMS[name], **more), drawn(name)


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    assert digest(VerbatimCopy(**options).tasks(split).take(24)) == expected


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        *(pytest.param(name, METRICS[0], marks=[pytest.mark.slow] if name == "long" else []) for name in STREAMS),
        ("tiny", METRICS[1]),
        ("standard", METRICS[2]),
    ],
)
def test_perfect_scores_one_empty_zero_another_gold_less(name: str, metric: str):
    env, tasks = stream(name, metric=metric)
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        for perfect in (env.perfect_answer(task), task.gold, f"Here it is:\n{env.perfect_answer(task)}\nDone."):
            assert env.score(task, Rollout.from_answer(task, perfect)).value == 1.0, task.info
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        assert other.gold != task.gold
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value < 1.0


def test_near_misses_are_not_exact_and_each_occurs():
    env = VerbatimCopy(lengths=3000)
    seen: set[str] = set()
    for task in env.tasks("eval").take(32):
        for change, make in CHANGES.items():
            if make(task.gold) != task.gold:
                seen.add(change)
                found = env.score(task, Rollout.from_answer(task, SLIPS[change](task))).metrics
                assert found["exact_match"] == 0.0
                assert 0.0 <= found["char_accuracy"] < 1.0
                assert 0.0 < found["levenshtein_similarity"] < 1.0
    assert seen == set(CHANGES)


def test_what_copies_nothing_matches_nothing():
    env = VerbatimCopy(lengths=800)
    for task in env.tasks("eval").take(24):
        for name, answer in BASELINES.items():
            found = env.score(task, Rollout.from_answer(task, answer(task))).metrics
            assert found["exact_match"] == 0.0
            assert found["char_accuracy"] < 0.5, name
            assert found["levenshtein_similarity"] < 0.5, name


@pytest.mark.parametrize("name", STREAMS)
def test_the_question_holds_the_text_once_and_the_context_is_empty(name: str):
    for task in stream(name)[1]:
        assert task.context == ""
        begin, end = task.question.rindex("<text>") + 6, task.question.rindex("</text>")
        assert task.question[begin:end] == task.gold
        assert task.question.count(task.gold) == 1
        assert end + 7 == len(task.question)
        assert not any(tag in task.gold for tag in TAGS)


REPL_SCAFFOLDS = ("rlm", "rlm-tips", "rlm-nosub")
OPTIONS = {"repl": {"preload": ()}, "max_turns": 1}
COPY_THE_VARIABLE = "answer['content'] = context\nanswer['ready'] = True"


@pytest.mark.parametrize("scaffold_name", SCAFFOLDS)
async def test_every_scaffold_is_shown_the_text_and_no_variable_holds_it(scaffold_name: str):
    environment = VerbatimCopy(lengths=400)
    scaffold = make_scaffold(scaffold_name, environment, OPTIONS)
    look = (
        "answer['content'] = repr({k: v for k, v in globals().items() if isinstance(v, str)})\nanswer['ready'] = True"
    )
    try:
        for task in environment.tasks("eval").take(8):
            root = StubLLM(lambda messages: fenced(look) if scaffold_name in REPL_SCAFFOLDS else "no")
            rollout = await scaffold.rollout(task, root)
            assert any(task.gold in message["content"] for message in root.seen[0])
            if scaffold_name in REPL_SCAFFOLDS:
                assert "'context': ''" in rollout.answer
                assert task.gold not in eval(rollout.answer).values()
                assert len(rollout.answer) < 1000
    finally:
        await scaffold.aclose()


async def test_with_the_text_in_a_variable_the_task_would_be_void():
    """One line of code that reads nothing would copy any text: so it scores nothing, and may never score."""
    environment = VerbatimCopy(lengths=400)
    scaffold = make_scaffold("rlm", environment, OPTIONS)
    try:
        for task in environment.tasks("eval").take(8):
            root = StubLLM(lambda messages: fenced(COPY_THE_VARIABLE))
            as_made = await scaffold.rollout(task, root)
            assert score(environment, task, as_made).value == 0.0
            void = replace(task, question="Copy the text in `context`.", context=task.gold)
            assert score(environment, void, await scaffold.rollout(void, root)).value == 1.0
    finally:
        await scaffold.aclose()


@pytest.mark.parametrize("scaffold_name", SCAFFOLDS)
async def test_a_perfect_copy_comes_through_every_scaffold(scaffold_name: str):
    environment = VerbatimCopy(lengths=700, fragment=None)
    scaffold = make_scaffold(scaffold_name, environment, OPTIONS)

    def reply(task: Task, tagged: bool) -> str:
        copy = environment.perfect_answer(task) if tagged or scaffold_name not in REPL_SCAFFOLDS else task.gold
        return (
            fenced(f"answer['content'] = {copy!r}\nanswer['ready'] = True") if scaffold_name in REPL_SCAFFOLDS else copy
        )

    try:
        for i, task in enumerate(environment.tasks("train").take(24)):
            root = StubLLM(lambda messages, task=task, i=i: reply(task, i % 16 < 8))
            rollout = await scaffold.rollout(task, root)
            assert score(environment, task, rollout).value == 1.0, (task.info, rollout.error)
    finally:
        await scaffold.aclose()


def test_kinds_are_what_they_say():
    for task in VerbatimCopy(lengths=6000).tasks("train").take(16):
        text = task.gold
        assert len(text) == 6000
        kind = task.info["family"]
        if kind == "json":
            whole = text[: text.rindex("\n  },")] + "\n  }\n]"
            assert len(json.loads(whole)) > 5
        elif kind == "csv":
            rows = list(csv.reader(io.StringIO(text[: text.rindex("\n")])))
            assert {len(row) for row in rows} == {8}
        elif kind == "unicode":
            assert unicodedata.normalize("NFC", text) != text
            assert unicodedata.normalize("NFD", text) != text
            assert any(unicodedata.combining(c) for c in text)
        elif kind == "whitespace":
            assert "\r\n" in text
            assert "\t" in text
            assert " \n" in text
            assert text.count("\n") > text.count("\r\n")
        elif kind == "quotes":
            assert text.count("\\") > 100
            assert '"""' in text
            assert "\\boxed{" in text
        else:
            assert text.isascii()


def test_fragments_keep_the_characters_and_break_the_order():
    for kind in KINDS:
        plain = VerbatimCopy(kinds=kind, lengths=2000).tasks("eval").take(1)[0].gold
        cut = VerbatimCopy(kinds=kind, lengths=2000, fragment=25).tasks("eval").take(1)[0].gold
        assert Counter(plain) == Counter(cut)
        assert plain != cut
        pieces = sum(plain[i : i + 60] in cut for i in range(0, 1900, 60))
        assert pieces <= 2


def test_tasks_are_endless_afresh_and_disjoint():
    tasks = VerbatimCopy(lengths=300).tasks("train")
    first = list(islice(iter(tasks), 9))
    assert list(islice(iter(tasks), 9)) == first
    assert [task.info["family"] for task in first] == [*KINDS, "words"]
    texts = {
        task.gold
        for seed in (0, 1)
        for split in ("train", "eval")
        for task in VerbatimCopy(lengths=300, seed=seed).tasks(split).take(80)
    }
    assert len(texts) == 320
    assert len(list(VerbatimCopy(num_tasks=3).tasks("eval"))) == 3


def test_lengths_are_cycled_over_once_all_kinds_had_their_turn():
    tasks = VerbatimCopy(kinds=["words", "csv"], lengths=[100, 200]).tasks("eval").take(6)
    assert [len(task.gold) for task in tasks] == [100, 100, 200, 200, 100, 100]


def test_bad_options_are_named_with_the_remedy():
    for options, message in [
        (dict(kinds="prose"), "kinds: 'prose' does not exist; there are words, json"),
        (dict(kinds=[]), "kinds must name at least one"),
        (dict(kinds="json", profile="tiny"), "kinds: 'json' does not exist; there are words, codes"),
        (dict(lengths=-1), "lengths must be one or more positive whole numbers"),
        (dict(fragment=0), "fragment must be at least 1"),
        (dict(metric="bleu"), "metric: 'bleu' does not exist; there are exact_match"),
        (dict(profile="huge"), "profile: 'huge' does not exist"),
    ]:
        with pytest.raises(ValueError, match=message):
            VerbatimCopy(**options)
    with pytest.raises(ValueError, match="split: 'test' does not exist"):
        VerbatimCopy().tasks("test")


def test_it_loads_by_name_and_has_tips():
    env = rlm_env.load_environment("verbatim-copy-rlm", seed=2, profile="tiny", max_turns=3)
    assert env.environment.kinds == ["words", "codes"]
    assert "variable" in env.environment.tips
