"""Oolong-real on transcripts made here: small ones, and long ones for which OOLONG_TRANSCRIPTS may name real ones."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import oolong_rlm
from oolong_rlm import Oolong
from oolong_rlm.transcripts import VARIABLE, find_transcripts, read_transcripts
from rlm_env.rollout import Rollout
from rlm_env.task import Task

HERE = Path(__file__).parent
EVENTS = Path(oolong_rlm.__file__).parent / "data" / "events.json"
SAYINGS = ("Natural 20!", "I cast Fireball.", "Make a stealth check.", "Twelve.", "Is it caf\u00e9 time?", "No.")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of 80 turns."""
    path = tmp_path_factory.mktemp("transcripts") / "episodes.jsonl.gz"
    speakers = ["ANNA", "ZOE", "ANNA", "BOB", "ANNA", "CARL", "ZOE, BOB", "ALL"]
    with gzip.open(path, "wt", encoding="utf-8") as out:
        for number in range(6):
            turns = [(speakers[i % 8], f"{SAYINGS[i % 6]} {'very ' * (i % 3)}{number}") for i in range(80)]
            out.write(json.dumps({"episode": f"E{number}", "turns": turns}) + "\n")
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real transcripts where the variable names them, else 26 episodes of about 200,000 characters."""
    if VARIABLE in os.environ:
        return find_transcripts()
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghilmnoprstuvw", k=rng.randint(1, 9))) for _ in range(20_000)]
    speakers = ["MATT", "LAURA", "SAM", "MARISHA", "LIAM", "ASHLEY, SAM", "ALL"]
    path = tmp_path_factory.mktemp("transcripts") / "episodes.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as out:
        for number in range(26):
            turns = [(rng.choice(speakers), " ".join(rng.choices(words, k=rng.randint(1, 60)))) for _ in range(1200)]
            out.write(json.dumps({"episode": f"C1E{number:03d}", "turns": turns}) + "\n")
    return path


def recount(tasks: list[Task]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(HERE / "recount_real.py"), str(EVENTS)],
        input="".join(json.dumps({"context": t.context, "question": t.question}) + "\n" for t in tasks),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(env: Oolong, tasks: list[Task]) -> None:
    """Attainability, uniqueness and a recount of some tasks."""
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        perfect = env.perfect_answer(task)
        assert env.score(task, Rollout.from_answer(task, perfect)).value == 1.0, (task.question, task.gold)
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        assert task.gold
        if other.gold != task.gold:
            assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value < 1.0
    for task, gold in zip(tasks, recount(tasks), strict=True):
        assert gold == task.gold, (task.id, task.question)


@pytest.mark.parametrize("n", [80, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scoring", ["official", "strict"])
def test_small_transcripts(small: Path, scoring: str, n: int):
    env = Oolong(dataset="real", transcripts=small, episodes=[1, 2, 6], scoring=scoring)
    tasks = env.tasks("eval").take(n) + env.tasks("train").take(n)
    check(env, tasks)
    assert set(Counter(task.info["family"] for task in tasks)) == {
        "singledoc_rolls", "singledoc_spells", "multidoc_rolls", "multidoc_spells"
    }  # fmt: skip


def test_renaming_what_is_invented_renames_the_answers_and_nothing_else(small: Path):
    rng, renamed, expected = random.Random(0), [], []
    for task in Oolong(dataset="real", transcripts=small, episodes=[1, 3]).tasks("eval").take(120):
        rules = re.search(r"of its own, namely (.*?), and spells of its own, namely (.*?)\. Questions", task.context)
        characters = re.findall(r"plays the character (\w+)\.", task.context)
        table: dict[str, str] = {}
        for names in (rules[1].split(", "), rules[2].split(", "), characters):
            table |= dict(zip(names, rng.sample(names, len(names)), strict=True))
        context, question, gold = (
            re.sub(r"\w+", lambda m, table=table: table.get(m[0], m[0]), text)
            for text in (task.context, task.question, task.gold)
        )
        renamed.append(replace(task, context=context, question=question))
        expected.append(gold)
    assert recount(renamed) == expected


def test_the_real_turns_change_no_gold(small: Path):
    """Whatever is spoken between the planted turns: said twice, it is no roll and no cast."""
    tasks = Oolong(dataset="real", transcripts=small, episodes=[1, 3]).tasks("train").take(120)
    spoken = {f"{who}: {said}" for episode in read_transcripts(small).episodes for who, said in episode.turns}
    doubled = []
    for task in tasks:
        lines = [again for line in task.context.split("\n") for again in [line] * (1 + (line in spoken))]
        assert len(lines) > 1.4 * task.context.count("\n")
        doubled.append(replace(task, context="\n".join(lines)))
    assert recount(doubled) == [task.gold for task in tasks]


@pytest.mark.slow
def test_long_transcripts(long: Path):
    env = Oolong(dataset="real", transcripts=long, episodes=[1, 2, 5])
    check(env, env.tasks("eval").take(30))


def test_24_episodes_fit_one_context(long: Path):
    env = Oolong(dataset="real", transcripts=long, episodes=24)
    tasks = env.tasks("eval").take(2)
    check(env, tasks)
    assert tasks[0].context.count("\n[START OF EPISODE]\n") == 24
    assert len(tasks[0].context) > 4_500_000


def planted_names(task: Task) -> list[str]:
    rules = task.context.partition("House rules: ")[2].partition(". Questions")[0]
    names = [name for part in rules.split("namely ")[1:] for name in re.findall(r"\b[A-Z]\w+", part)]
    assert len(names) == 12
    return names


def test_planted_names_occur_nowhere_in_the_transcripts(long: Path):
    transcripts = read_transcripts(long)
    text = "\n".join(said for episode in transcripts.episodes for _, said in episode.turns).lower()
    for task in Oolong(dataset="real", transcripts=long).tasks("train").take(3):
        assert not [name for name in planted_names(task) if name.lower() in text]


def test_names_that_the_transcripts_hold_are_not_drawn(small: Path, tmp_path: Path):
    """Transcripts that speak the very names that would be drawn, as parts of words: others are drawn."""
    first = Oolong(dataset="real", transcripts=small).tasks("train").take(1)[0]
    spoken = [("ZOE", f"un{name.lower()}like") for name in planted_names(first)]
    path = tmp_path / "episodes.jsonl"
    with gzip.open(small, "rt", encoding="utf-8") as lines, path.open("w", encoding="utf-8") as out:
        for line in lines:
            episode = json.loads(line)
            out.write(json.dumps({**episode, "turns": episode["turns"] + spoken}) + "\n")
    again = Oolong(dataset="real", transcripts=path).tasks("train").take(1)[0]
    assert not set(planted_names(first)) & set(planted_names(again))


def test_the_text_is_kept_and_only_added_to(small: Path):
    episode = read_transcripts(small).episodes[0]
    spoken = [f"{speaker}: {said}" for speaker, said in episode.turns]
    for task in Oolong(dataset="real", transcripts=small).tasks("eval").take(30):
        if task.info["episodes"] != ["E0"]:
            continue
        lines = iter(task.context.split("\n"))
        assert all(line in lines for line in spoken)  # in order: `in` consumes the iterator
        return
    pytest.fail("the first episode was never drawn")


def test_the_same_bytes_everywhere(small: Path):
    tasks = Oolong(dataset="real", transcripts=small, episodes=[1, 3]).tasks("eval").take(20)
    text = "\0".join(f"{task.context}\0{task.question}\0{task.gold}" for task in tasks)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "db236c11ddef1f37"


def test_splits_differ_and_tasks_repeat(small: Path):
    env = Oolong(dataset="real", transcripts=small)
    assert env.tasks("eval").take(5) == env.tasks("eval").take(5)
    assert not {t.context for t in env.tasks("eval").take(20)} & {t.context for t in env.tasks("train").take(20)}


def test_missing_transcripts_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match=r"none are named.*give transcripts=<path .* or set OOLONG_TRANSCRIPTS"):
        Oolong(dataset="real")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.jsonl\b"):
        Oolong(dataset="real", transcripts=tmp_path / "absent.jsonl")


def test_transcripts_are_found_by_option_variable_and_folder_only(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, str(small))
    assert find_transcripts() == small
    folder = tmp_path / "shared" / "data"
    folder.mkdir(parents=True)
    (folder / "crd3_episodes.jsonl.gz").write_bytes(small.read_bytes())
    assert find_transcripts(folder) == folder / "crd3_episodes.jsonl.gz"
    # A folder of that name above the working directory is not the user's word.
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(FileNotFoundError, match="no transcripts"):
        find_transcripts()


def test_broken_transcripts_are_named_by_line(tmp_path: Path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"episode": "E1", "turns": [["A", "hi"]]}\n{"turns": 3}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2: expected"):
        Oolong(dataset="real", transcripts=path)


def test_more_episodes_than_there_are(small: Path):
    with pytest.raises(ValueError, match="episodes: the transcripts hold 6, got 7"):
        Oolong(dataset="real", transcripts=small, episodes=7)
