"""The keyword baseline is at chance where no keyword is leaked, perfect where all are; vocabularies keep that true."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from statistics import mean

import pytest

from oolong_rlm import Oolong, OolongPairs, baselines
from oolong_rlm.pairs import MAX_SHARE
from oolong_rlm.vocabulary import load_vocabulary
from rlm_env.rollout import Rollout
from rlm_env.task import Task

VOCABULARIES = ("easy", "standard")
COUNT = "In the above data, how many data points should be classified as label 'spam'? Well?"


def accuracy_and_scores(vocabulary: str, leak: float, lengths: list[int]) -> tuple[float, float, float, float]:
    """Accuracy per instance of the keyword baseline and of chance, and their mean official scores."""
    env = Oolong(vocabulary=vocabulary, leak=leak, lengths=lengths, with_labels=True, families="counting")
    tasks = env.tasks("eval").take(100)
    right, chance, total = 0, 0.0, 0
    scores = [0.0, 0.0]
    for task in tasks:
        truth = [line.rpartition(" || Label: ")[2] for line in task.context.split("\n") if " || Label: " in line]
        rows = baselines.read_rows(task, baselines.keyword_label)
        right += sum(row.label == label for row, label in zip(rows, truth, strict=True))
        chance += len(rows) / len(task.info["labels"])
        total += len(rows)
        for place, labeler in enumerate((baselines.keyword_label, baselines.chance_label)):
            answer = baselines.answer(task, labeler)
            scores[place] += env.score(task, Rollout.from_answer(task, answer)).value / len(tasks)
    return right / total, chance / total, scores[0], scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_keywords_are_within_ten_points_of_chance_when_none_is_leaked(vocabulary: str):
    # 16K too: what is a small edge for an instance would be a sure answer for a long window.
    accuracy, chance, score, chance_score = accuracy_and_scores(vocabulary, 0.0, [1024, 16384])
    assert abs(accuracy - chance) < 0.02
    assert abs(score - chance_score) < 0.10


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_keywords_are_enough_when_all_are_leaked(vocabulary: str):
    accuracy, _, score, _ = accuracy_and_scores(vocabulary, 1.0, [2048])
    assert accuracy == pytest.approx(1.0)
    assert score == pytest.approx(1.0)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_leak_is_a_dial(vocabulary: str):
    none, half, all_of_it = (accuracy_and_scores(vocabulary, leak, [2048])[0] for leak in (0.0, 0.5, 1.0))
    assert none + 0.2 < half < all_of_it - 0.2


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_solver_with_the_true_labels_scores_one(vocabulary: str):
    env = Oolong(vocabulary=vocabulary, lengths=[1024, 4096], with_labels=True)
    for task in env.tasks("train").take(200):
        truth = iter([line.rpartition(" || Label: ")[2] for line in task.context.split("\n") if " || Label: " in line])
        answer = baselines.answer(task, lambda text, labels, vocabulary, truth=truth: next(truth))
        assert env.score(task, Rollout.from_answer(task, answer)).value == 1.0, task.question


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_solver_with_the_true_labels_finds_all_pairs(vocabulary: str):
    env = OolongPairs(vocabulary=vocabulary, lengths=[512, 2048], with_labels=True)
    for task in env.tasks("train").take(150):
        truth = iter([line.rpartition(" || Label: ")[2] for line in task.context.split("\n") if " || Label: " in line])
        assert baselines.answer(task, lambda text, labels, vocabulary, truth=truth: next(truth)) == task.gold


def mean_scores(env: Oolong, n: int) -> dict[str, float]:
    tasks = env.tasks("eval").take(n)
    return {
        name: mean(env.score(task, Rollout.from_answer(task, answer(task))).value for task in tasks)
        for name, answer in baselines.BASELINES.items()
    }


@pytest.mark.slow
def test_the_floors_of_synth_and_pairs_are_low():
    synth = mean_scores(Oolong(lengths=[2048, 8192], families="counting"), 50)
    assert max(synth.values()) < 0.5
    assert synth["list everything"] < 0.25
    assert synth["label dump"] < 0.25
    pairs = mean_scores(OolongPairs(lengths=[2048, 8192]), 50)
    assert pairs["label dump"] == pairs["no context"] == 0.0
    assert pairs["list everything"] < 2 * MAX_SHARE / (1 + MAX_SHARE)
    assert abs(pairs["keyword"] - pairs["random"]) < 0.1


def test_baselines_answer_the_same_each_time_and_never_the_gold_by_name():
    for env in (Oolong(vocabulary="easy", lines=8, leak=0.0), OolongPairs(lengths=1024)):
        for task in env.tasks("train").take(40):
            blind = replace(task, gold=None)
            for answer in baselines.BASELINES.values():
                assert answer(blind) == answer(task)


def test_published_windows_have_baselines_too():
    lines = [f"Date: Jan 0{i}, 2023 || User: {i} || Instance: a question about spam {i}" for i in range(1, 9)]
    context = "Each line has one of 2 categories: 'spam', 'ham'.\n\n" + "\n".join(lines)
    info = {"subset": "synth", "answer_type": "NUMERIC"}
    known = Task(COUNT, context, "[8]", info=info)
    unknown = Task("How many of them are long?", context, "[8]", info=info)
    assert baselines.BASELINES["keyword"](known) == "Answer: 8"
    assert baselines.BASELINES["keyword"](unknown) == ""
    assert baselines.BASELINES["list everything"](unknown) == "Answer: 0, 1, 2, 3, 4, 5, 6, 7, 8"


def test_transcripts_have_baselines(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    turns = [(("ANNA", "ZOE", "ANNA", "BOB", "CARL")[i % 5], f"Well, {i}.") for i in range(200)]
    path.write_text("".join(json.dumps({"episode": f"E{n}", "turns": turns}) + "\n" for n in range(4)))
    env = Oolong(dataset="real", transcripts=path, episodes=[1, 4])
    scores = mean_scores(env, 120)
    assert set(scores) == set(baselines.BASELINES)
    assert scores["label dump"] == 0.0
    assert scores["list everything"] < 0.3
    assert max(scores.values()) == scores["keyword"] < 0.8
    bare = Task("How many spells were cast?", "A published transcript.", "3", info={"subset": "real"})
    assert {name for name, answer in baselines.BASELINES.items() if answer(bare)} == {"no context"}


def test_unknown_questions_are_refused():
    with pytest.raises(ValueError, match="no known question"):
        baselines.solve("How are you?", [])
    with pytest.raises(ValueError, match="no generated question about pairs"):
        baselines.solve("In the above data, list all pairs of user IDs of friends.", [])


@pytest.mark.parametrize("name", VOCABULARIES)
def test_vocabularies_are_unambiguous(name: str):
    vocabulary = load_vocabulary(name)
    owners = [(phrase, label) for label, phrases in vocabulary.labels.items() for phrase in phrases]
    for (one, _), (other, _) in permutations(owners, 2):
        assert one not in other
    frames = vocabulary.lead + vocabulary.plain + vocabulary.hard + vocabulary.tail
    assert not any(phrase in frame for phrase, _ in owners for frame in frames)
    assert all(frame.count("{yes}") == 1 and "{no}" not in frame for frame in vocabulary.plain)
    assert all(frame.count("{yes}") == frame.count("{no}") == 1 for frame in vocabulary.hard)
    assert not any(
        "||" in text or "\n" in text for text in [*frames, *(phrase for phrase, _ in owners), *vocabulary.labels]
    )
    assert all(text.isascii() for text in [*frames, *(phrase for phrase, _ in owners)])
    # Which side the meant phrase stands on must not tell: as many frames have it first as last.
    first = sum(frame.index("{yes}") < frame.index("{no}") for frame in vocabulary.hard)
    assert abs(2 * first - len(vocabulary.hard)) <= 2
