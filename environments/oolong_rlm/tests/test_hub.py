"""The published sets: their schema mapped to tasks, other schemas and revisions refused. No network: local files."""

from __future__ import annotations

from pathlib import Path

import pytest

from oolong_rlm import Oolong
from oolong_rlm.hub import PUBLISHED
from rlm_env.rollout import Rollout
from tests.published_rows import write_changed, write_rows

datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")

LINES = "Date: Jan 06, 2023 || User: 76063 || Instance: free tone now\nDate: Feb 01, 2023 || User: 4 || Instance: hi"


def synth_row(i: int, question: str, answer: str, answer_type: str, **changes: object) -> dict:
    return {
        "id": 110_010_000 + i,
        "context_len": 1024,
        "dataset": "spam",
        "context_window_text": LINES,
        "context_window_text_with_labels": LINES.replace("now", "now || Label: spam") + " || Label: ham",
        "question": question,
        "task_group": "counting",
        "task": "TASK_TYPE.MOST_FREQ",
        "answer": answer,
        "answer_type": f"ANSWER_TYPE.{answer_type}",
        "input_subset": "False",
        "num_labels": 2,
        "context_window_id": 10_000,
        **changes,
    }


# Form of the answer, gold, answer type: one row for each way of answering.
FORMS = [
    ("Label: answer", "['spam']", "LABEL"),
    ("Answer: number", "[12]", "NUMERIC"),
    ("Answer: ham is [X] spam", "['less common than']", "COMPARISON"),
    ("Answer: ham is [X] before Mar 15, 2023", "['the same frequency']", "COMPARISON"),
    ("User: [X]", "[44106]", "USER"),
    ("Date: [X]", "[datetime.date(2023, 1, 6)]", "DATE"),
    ("Answer: [month] [year]", "['January 2022']", "MONTH_YEAR"),
]
ROWS = [
    synth_row(i, f"Well? Give your final answer in the form '{form}', where it is right.", gold, answer_type)
    for i, (form, gold, answer_type) in enumerate(FORMS)
]
ROWS.append(ROWS[1] | {"id": 7, "context_len": 2048, "dataset": "imdb"})
REAL = {
    "id": "3952f2d5-082f-14b2-5ec4-d9cbedd2f865",
    "context_window_id": "e4fb38b9-ffca-0729-d52a-02fffd17610a",
    "context_window_text": "[START OF EPISODE]\nBob: 4.\n[END OF EPISODE]",
    "question": "Total number of rolls in this episode?",
    "answer": "84",
    "question_type": "singledoc_rolls",
    "episodes": [1],
    "campaign": "campaign1",
}


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_synth_rows_become_tasks(tmp_path: Path, ending: str):
    write_rows(tmp_path / f"test-00000.{ending}", ROWS)
    env = Oolong(dataset="hub-synth", files=tmp_path)
    tasks = list(env.tasks("eval"))
    assert [task.gold for task in tasks] == [row["answer"] for row in ROWS]
    assert tasks[0].info["answer_type"] == "LABEL"
    assert tasks[0].id == "synth-110010000"
    for task in tasks:
        assert task.context == LINES
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0, task.question
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0


def test_synth_rows_are_chosen_by_length_and_source_and_may_show_labels(tmp_path: Path):
    write_rows(tmp_path / "validation.jsonl", ROWS)
    chosen = list(Oolong(dataset="hub-synth", files=tmp_path, lengths=2048).tasks("train"))
    assert [task.info["length_tokens"] for task in chosen] == [2048]
    assert len(list(Oolong(dataset="hub-synth", files=tmp_path, sources=["spam"]).tasks("train"))) == 7
    labeled = Oolong(dataset="hub-synth", files=tmp_path, with_labels=True, num_tasks=1).tasks("train")
    assert "|| Label: spam" in next(iter(labeled)).context


def test_real_rows_become_tasks_whose_question_names_the_box(tmp_path: Path):
    rows = [
        REAL,
        REAL | {"id": "b", "answer": "Fireball, Shield", "question_type": "multidoc_spells", "episodes": [2, 16]},
    ]
    write_rows(tmp_path / "test.parquet", rows)
    env = Oolong(dataset="hub-real", files=tmp_path / "test.parquet")
    tasks = list(env.tasks("eval"))
    assert tasks[0].question == "Total number of rolls in this episode? Return the final answer in \\boxed{}."
    assert tasks[1].info["n_episodes"] == 2
    for task in tasks:
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0


def test_each_window_is_asked_for_pairs_once(tmp_path: Path):
    days = ("Jan 06, 2023", "Feb 01, 2023", "Mar 20, 2023", "Jun 01, 2023")
    lines = [f"Date: {day} || User: {user} || Instance: Who {day}?" for user in (4, 7, 76063) for day in days]
    labels = ("human being", "location", "entity", "numeric value", "abbreviation")
    plain = "\n".join(lines)
    labeled = "\n".join(f"{line} || Label: {labels[i % 5]}" for i, line in enumerate(lines))
    window = {"context_window_text": plain, "context_window_text_with_labels": labeled}
    rows = [synth_row(i, "Well?", "[1]", "NUMERIC", dataset="trec_coarse", **window) for i in range(3)]
    rows.append(rows[0] | {"context_len": 2048})
    write_rows(tmp_path / "test.jsonl", [*ROWS, *rows])
    env = Oolong(dataset="hub-pairs", files=tmp_path, lengths=1024)
    tasks = list(env.tasks("eval"))
    assert len({task.id for task in tasks}) == len(tasks) > 8
    assert {task.context for task in tasks} == {plain}
    assert tasks[0].info["family"] == "pairs_1"
    assert tasks[0].gold == "(4, 7)\n(4, 76063)\n(7, 76063)"
    for task in tasks:
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).metrics["strict"] == 1.0
    assert len(list(Oolong(dataset="hub-pairs", files=tmp_path).tasks("eval"))) == 2 * len(tasks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row: row.pop("answer_type"),
            r"differ from the pinned revision f0d59.*missing \['answer_type'\]",
        ),
        (lambda row: row.update(difficulty=3), r"unknown \['difficulty'\]; use that revision"),
        (lambda row: row.update(context_len="1024"), "has context_len = '1024', expected a non-empty int"),
        (lambda row: row.update(answer=" "), "has answer = ' '"),
    ],
)
def test_other_schemas_are_refused(tmp_path: Path, change, message: str):
    files = write_changed(tmp_path / "test.jsonl", ROWS[0], change)
    with pytest.raises(ValueError, match=message):
        list(Oolong(dataset="hub-synth", files=files).tasks("eval"))


def test_branches_tags_and_contradictions_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'main' is not a commit of 40 hex digits.*The tested one is f0d59"):
        list(Oolong(dataset="hub-synth", revision="main").tasks("eval"))
    write_rows(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(ValueError, match="local files have none"):
        list(Oolong(dataset="hub-synth", files=tmp_path, revision="0" * 40).tasks("eval"))
    with pytest.raises(FileNotFoundError, match=r"is no parquet or json file and holds none named validation\*"):
        list(Oolong(dataset="hub-synth", files=tmp_path).tasks("train"))


@pytest.mark.parametrize("dataset", ["hub-synth", "hub-real"])
def test_the_hub_is_asked_for_the_pinned_commit(dataset: str, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(*place: object, **options: object) -> list[dict]:
        asked.append((place, options))
        return [ROWS[0] if dataset == "hub-synth" else REAL]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    published = PUBLISHED[dataset]
    assert len(list(Oolong(dataset=dataset).tasks("eval"))) == 1
    expected = {"split": "test", "revision": published.revision, "streaming": True}
    assert asked == [((published.repository, published.config), expected)]
