"""The generator: lengths, lines, options, bytes. Hashes say that the same bytes come out everywhere."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from itertools import islice, product
from pathlib import Path

import pytest

from oolong_rlm import Oolong, OolongPairs
from oolong_rlm.pairs import PAIR_FAMILIES
from oolong_rlm.questions import EASY_FAMILIES, FAMILIES
from rlm_env.task import Task

LINE = re.compile(r"Date: [A-Z][a-z]{2} \d\d, \d{4} \|\| User: \d+ \|\| Instance: \S.*")


def digest(tasks: list[Task]) -> str:
    text = "\0".join(f"{task.id}\0{task.context}\0{task.question}\0{task.gold}" for task in tasks)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# A change here is a change of the benchmark: raise FORMAT in the module concerned and say so in the README.
HASHES = [
    (dict(vocabulary="easy", lengths=[150, 250, 500]), "eval", "cd9ac09c87ab5aae"),
    (dict(vocabulary="easy", lengths=[150, 250, 500]), "train", "f439fbe6f8795a73"),
    (dict(vocabulary="easy", lengths=300, leak=0.0, seed=3), "eval", "9a682842e60962e2"),
    (dict(lengths=[1024, 4096]), "eval", "bb244c1a4208ad59"),
    (dict(lengths=[1024, 4096], with_labels=True, seed=1), "train", "5e1522902fe22f30"),
    (dict(lengths=65_536, families="timeline", leak=0.5, questions_per_context=5), "eval", "0989de0a4412b6a9"),
]


@pytest.mark.parametrize(("options", "split", "expected"), HASHES)
def test_the_same_bytes_everywhere(options: dict, split: str, expected: str):
    assert digest(Oolong(**options).tasks(split).take(20)) == expected


def test_tasks_start_afresh_and_are_lazy_and_endless():
    env = Oolong(vocabulary="easy", lengths=200)
    tasks = env.tasks("train")
    first = list(islice(iter(tasks), 3))
    assert list(islice(iter(tasks), 3)) == first
    assert len({task.id for task in tasks.take(50)}) == 50
    assert len(list(Oolong(vocabulary="easy", lengths=200, num_tasks=4).tasks("eval"))) == 4


def test_splits_and_seeds_are_disjoint():
    contexts: set[str] = set()
    for seed in (0, 1):
        for split in ("train", "eval"):
            contexts |= {task.context for task in Oolong(lengths=1024, seed=seed).tasks(split).take(40)}
    assert len(contexts) == 160


@pytest.mark.parametrize(
    ("vocabulary", "length"), [("easy", 120), ("easy", 2000), ("standard", 1024), ("standard", 50_000)]
)
def test_contexts_are_as_long_as_asked_and_of_the_line_format(vocabulary: str, length: int):
    for task in Oolong(vocabulary=vocabulary, lengths=length).tasks("eval").take(10):
        lines = [line for line in task.context.split("\n") if line.startswith("Date: ")]
        longest = max(map(len, lines))
        assert length * 4 - 3 * longest <= len(task.context) <= length * 4
        assert task.info["length_tokens"] <= length
        assert task.info["lines"] == len(lines)
        assert f"contain {len(lines)} messages, one per line." in task.context
        assert all(LINE.fullmatch(line) for line in lines)


@pytest.mark.parametrize("vocabulary", ["easy", "standard"])
def test_contexts_have_as_many_lines_as_asked(vocabulary: str):
    for task, n in zip(
        Oolong(vocabulary=vocabulary, lines=[8, 50, 4]).tasks("eval").take(30), [8, 50, 4] * 10, strict=True
    ):
        assert task.info["lines"] == task.info["target_lines"] == n
        assert len(re.findall("^Date: ", task.context, re.M)) == n


def test_the_tiny_profile_is_easy_and_short():
    for env, same in (
        (Oolong(profile="tiny"), Oolong(vocabulary="easy", lines=8)),
        (OolongPairs(profile="tiny", lines=16), OolongPairs(vocabulary="easy", lines=16)),
        (Oolong(profile="tiny", lengths=300), Oolong(vocabulary="easy", lengths=300)),
    ):
        assert env.tasks("eval").take(5) == same.tasks("eval").take(5)
    assert all(len(task.context) < 1000 for task in Oolong(profile="tiny").tasks("eval").take(100))


@pytest.mark.parametrize("family", EASY_FAMILIES)
def test_every_easy_family_can_be_asked_alone_about_eight_lines(family: str):
    tasks = Oolong(vocabulary="easy", lines=8, families=[family]).tasks("train").take(50)
    assert {task.info["family"] for task in tasks} == {family}


def test_short_tasks_of_the_splits_never_coincide():
    """Nor do those of several seeds, so that an eval set is held out whatever is trained on."""
    contexts: set[str] = set()
    for seed, split in product(range(3), ("train", "eval")):
        tasks = Oolong(vocabulary="easy", lines=[4, 8], seed=seed).tasks(split).take(1500)
        contexts |= {task.context for task in tasks}
    assert len(contexts) == 3 * 2 * 1500


def test_families_held_out_are_never_asked():
    env = Oolong(vocabulary="easy", lines=8, families=["count", "compare", "user_label"])
    assert {task.info["family"] for task in env.tasks("train").take(300)} == {"count", "compare", "user_label"}


def test_lengths_are_cycled_over():
    tasks = Oolong(lengths=[1024, 2048, 4096]).tasks("eval").take(6)
    assert [task.info["target_tokens"] for task in tasks] == [1024, 2048, 4096] * 2


def test_labels_can_be_printed_and_change_nothing_else():
    plain = Oolong(lengths=2048).tasks("eval").take(20)
    labeled = Oolong(lengths=2048, with_labels=True).tasks("eval").take(20)
    for without, with_labels in zip(plain, labeled, strict=True):
        assert re.sub(r" \|\| Label: .*", "", with_labels.context) == without.context
        assert (with_labels.question, with_labels.gold) == (without.question, without.gold)


def test_a_tokenizer_measures(tmp_path):
    def blanks(text: str) -> list[str]:
        return text.split(" ")

    task = Oolong(lengths=1500, tokenizer=blanks).tasks("eval").take(1)[0]
    assert 1400 <= len(blanks(task.context)) <= 1500
    with pytest.raises(ValueError, match="tokenizer: there is no"):
        Oolong(tokenizer=tmp_path)
    with pytest.raises(TypeError, match="tokenizer: expected None, a callable or a path"):
        Oolong(tokenizer=3)


def test_a_tokenizer_file_measures(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    task = Oolong(lengths=800, tokenizer=tmp_path).tasks("eval").take(1)[0]
    assert 700 <= len(words.encode(task.context).ids) <= 800


def test_consecutive_questions_may_share_a_context():
    tasks = Oolong(lengths=2048, questions_per_context=5).tasks("eval").take(10)
    assert len({id(task.context) for task in tasks}) == 2
    assert len({task.id for task in tasks}) == 10


def test_families_are_chosen_by_name_or_group():
    tasks = Oolong(lengths=2048, families=["count", "timeline"]).tasks("eval").take(60)
    groups = {task.info["family"]: task.info["task_group"] for task in tasks}
    assert groups["count"] == "counting"
    assert set(groups.values()) == {"counting", "timeline"}
    assert {task.info["family"] for task in Oolong(families="user_second", lengths=8192).tasks("eval").take(5)} == {
        "user_second"
    }


def test_the_readme_names_every_family():
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    section = readme.partition("### Families")[2].partition("\n### ")[0]
    for group, members in (FAMILIES | PAIR_FAMILIES).items():
        row = re.search(rf"^\| `{group}` [^|]*\|(.*)$", section, re.M)[1]
        assert re.findall(r"`(\w+)`", row) == list(members)
    named = re.search(r"vocabulary is asked about .*?:(.*)\.", section)[1]
    assert tuple(re.findall(r"`(\w+)`", named)) == EASY_FAMILIES


def test_gold_stays_out_of_what_a_policy_may_see():
    for task in Oolong(lengths=1024).tasks("eval").take(50):
        assert "gold" not in task.info
        assert "answer" not in task.info


def test_a_long_context_is_not_held_twice():
    env = Oolong(lengths=1_000_000, families="count")
    env.tasks("train").take(1)
    tracemalloc.start()
    try:
        task = env.tasks("eval").take(1)[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(task.context) > 3_990_000
    assert peak < 1.6 * len(task.context)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(length=3), TypeError, "unknown option 'length'; there are dataset, seed, num_tasks"),
        (dict(lengths=[]), ValueError, "lengths must be one or more positive whole numbers"),
        (dict(lengths=[0]), ValueError, "lengths must be"),
        (dict(profile="huge"), ValueError, "profile: 'huge' does not exist; there are standard, tiny"),
        (dict(dataset="hub-real", profile="tiny"), ValueError, "dataset 'hub-real' has no option profile"),
        (dict(lines=3), ValueError, "lines must be 4 or more, got 3"),
        (dict(lines=[8, 0]), ValueError, "lines must be one or more positive whole numbers"),
        (dict(lines=8, lengths=1024), ValueError, "exclude each other; give one of them"),
        (dict(lines=8, dataset="hub-synth"), ValueError, "dataset 'hub-synth' has no option lines"),
        (dict(leak=1.5), ValueError, r"leak must lie in \[0, 1\]"),
        (dict(vocabulary="hard"), ValueError, "vocabulary: 'hard' does not exist; there are easy, standard"),
        (dict(families=["counts"]), ValueError, "families: 'counts' does not exist; there are the groups counting"),
        (dict(families=[]), ValueError, "at least one family"),
        (dict(dataset="oolong"), ValueError, "dataset: 'oolong' does not exist; there are synth, pairs, real"),
        (dict(scoring="mild"), ValueError, "scoring: 'mild' does not exist"),
        (dict(num_tasks=0), ValueError, "num_tasks must be at least 1"),
        (dict(episodes=2), ValueError, "dataset 'synth' has no option episodes"),
        (dict(questions_per_context=0), ValueError, "questions_per_context must be"),
    ],
)
def test_bad_options_are_named_with_the_remedy(options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Oolong(**options)


def test_a_length_below_four_lines_is_refused_with_one_that_does():
    with pytest.raises(ValueError, match=r"lengths: 50 tokens hold fewer than 4 lines; use a greater length") as caught:
        Oolong(vocabulary="easy", lengths=50).tasks("eval").take(1)
    enough = int(re.search(r"about (\d+) or more", str(caught.value))[1])
    Oolong(vocabulary="easy", lengths=enough).tasks("eval").take(20)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split: 'test' does not exist; there are train, eval"):
        Oolong().tasks("test")
