"""INTELLECT-3-RL math: rows mapped to tasks, other schemas and revisions refused. No network: local files."""

from __future__ import annotations

from pathlib import Path

import pytest

from math_python_rlm import MathPython
from math_python_rlm.hub import DIFFICULTY, PUBLISHED
from rlm_env.rollout import Rollout
from tests.published_rows import write_changed, write_rows

datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
pytest.importorskip("math_verify", reason="the extra `math` is not installed")

ROWS = [
    {
        "question": f"What is ${i}$ plus one half?",
        "answer": f"\\frac{{{2 * i + 1}}}{{2}}",
        DIFFICULTY: i % 9 / 8,
        "info": "{}",
    }
    for i in range(200)
]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_rows_become_tasks_of_two_disjoint_splits(tmp_path: Path, ending: str):
    write_rows(tmp_path / f"train-00000.{ending}", ROWS)
    env = MathPython(dataset="hub", files=tmp_path)
    train, evaluation = list(env.tasks("train")), list(env.tasks("eval"))
    assert len(train) + len(evaluation) == len(ROWS)
    assert 0 < len(evaluation) < 30
    assert not {task.question for task in train} & {task.question for task in evaluation}
    assert len({task.id for task in train + evaluation}) == len(ROWS)
    for task in evaluation:
        assert "\\boxed{}" in task.question
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0


def test_rows_are_chosen_by_solve_rate(tmp_path: Path):
    write_rows(tmp_path / "train.jsonl", ROWS)
    chosen = MathPython(dataset="hub", files=tmp_path, solve_rate=(0.25, 0.5)).tasks("train")
    assert {task.info["solve_rate"] for task in chosen} == {0.25, 0.375, 0.5}
    write_rows(tmp_path / "train.jsonl", [{"question": "Q?", "answer": "1"}] * 3)
    with pytest.raises(ValueError, match="solve_rate: PrimeIntellect/INTELLECT-3-RL has no number in column"):
        list(MathPython(dataset="hub", files=tmp_path, solve_rate=(0, 1)).tasks("train"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("answer"), r"differ from the pinned revision a9eb91.*missing \['answer'\]"),
        (lambda row: row.update(answer=34), "has answer = '34', expected a non-empty str"),
        (lambda row: row.update(question=" "), "has question = ' '"),
    ],
)
def test_other_schemas_are_refused(tmp_path: Path, change, message: str):
    files = write_changed(tmp_path / "train.jsonl", ROWS[0], change)
    with pytest.raises(ValueError, match=message):
        list(MathPython(dataset="hub", files=files).tasks("train"))


def test_branches_and_contradictions_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'main' is not a commit of 40 hex digits.*The tested one is a9eb91"):
        list(MathPython(dataset="hub", revision="main").tasks("eval"))
    with pytest.raises(FileNotFoundError, match=r"holds none named train\*"):
        list(MathPython(dataset="hub", files=tmp_path).tasks("train"))
    write_rows(tmp_path / "train.jsonl", ROWS[:1])
    with pytest.raises(ValueError, match="local files have none"):
        list(MathPython(dataset="hub", files=tmp_path, revision="0" * 40).tasks("train"))


def test_the_hub_is_asked_for_the_pinned_commit(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(*place: object, **options: object) -> list[dict]:
        asked.append((place, options))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(list(MathPython(dataset="hub", num_tasks=3).tasks("train"))) == 3
    options = {"split": "train", "revision": PUBLISHED.revision, "streaming": True}
    assert asked == [(("PrimeIntellect/INTELLECT-3-RL", "math"), options)]
