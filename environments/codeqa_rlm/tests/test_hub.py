"""LongBench-v2: rows mapped to tasks, other schemas and revisions refused. No network: local files."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeqa_rlm import CodeQA
from codeqa_rlm.hub import DOMAIN, ITEMS, PUBLISHED
from rlm_env.rollout import Rollout
from tests.published_rows import write_changed, write_rows

datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")


def row(i: int, **changes: object) -> dict:
    return {
        "_id": f"66ebd22b5a08c7b9b35e{i:04x}",
        "domain": DOMAIN,
        "sub_domain": "Code repo QA",
        "difficulty": "hard",
        "length": "long",
        "question": f"Which class owns the cache in case {i}? ",
        "choice_A": "Reader",
        "choice_B": "Writer ",
        "choice_C": "Loader",
        "choice_D": "None of them",
        "answer": "ABCD"[i % 4],
        "context": f"def main():\n    return {i}\n",
        **changes,
    }


ROWS = [row(i) for i in range(6)] + [row(6, domain="Single-Document QA")]


def test_rows_of_the_domain_become_tasks(tmp_path: Path):
    env = CodeQA(dataset="hub", files=write_rows(tmp_path / "data.json", ROWS))
    tasks = list(env.tasks("eval"))
    assert [task.gold for task in tasks] == list("ABCDAB")
    assert tasks[1].context == ROWS[1]["context"]
    assert tasks[1].id == f"longbench-v2-{ROWS[1]['_id']}"
    assert tasks[1].question.startswith("Which class owns the cache in case 1?\n\n(A) Reader\n(B) Writer\n(C) Loader\n")
    assert "'The correct answer is (X)'" in tasks[1].question
    assert tasks[1].info["difficulty"] == "hard"
    assert env.standard_prompt(tasks[1]).startswith(ROWS[1]["context"])
    for task in tasks:
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0


def test_the_form_of_the_rlm_paper(tmp_path: Path):
    env = CodeQA(dataset="hub", files=write_rows(tmp_path / "train.json", ROWS), choices="0123")
    tasks = list(env.tasks("eval"))
    assert [task.gold for task in tasks] == list("012301")
    assert "\n(0) Reader\n(1) Writer\n" in tasks[0].question
    assert env.score(tasks[2], Rollout.from_answer(tasks[2], "The correct answer is (2)")).value == 1.0


def test_it_is_no_training_set(tmp_path: Path):
    env = CodeQA(dataset="hub", files=write_rows(tmp_path / "data.json", ROWS))
    with pytest.raises(ValueError, match="has no split train: LongBench-v2 is an evaluation set"):
        list(env.tasks("train"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("choice_D"), r"differ from the pinned revision 2b48e4.*missing \['choice_D'\]"),
        (lambda row: row.update(source="x"), r"unknown \['source'\]; use that revision"),
        (lambda row: row.update(answer="E"), "has answer = 'E', expected A to D"),
        (lambda row: row.update(question=" "), "has question = ' '"),
    ],
)
def test_other_schemas_are_refused(tmp_path: Path, change, message: str):
    files = write_changed(tmp_path / "data.json", row(0), change)
    with pytest.raises(ValueError, match=message):
        list(CodeQA(dataset="hub", files=files).tasks("eval"))


def test_branches_and_contradictions_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'main' is not a commit of 40 hex digits.*The tested one is 2b48e4"):
        list(CodeQA(dataset="hub", revision="main").tasks("eval"))
    path = write_rows(tmp_path / "data.json", ROWS)
    with pytest.raises(ValueError, match="local files have none"):
        list(CodeQA(dataset="hub", files=path, revision="0" * 40).tasks("eval"))


def test_the_hub_is_asked_for_the_pinned_commit_and_must_have_all_items(monkeypatch: pytest.MonkeyPatch):
    asked, rows = [], [row(i) for i in range(ITEMS)]

    def load_dataset(*place: object, **options: object) -> list[dict]:
        asked.append((place, options))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(list(CodeQA(dataset="hub").tasks("eval"))) == ITEMS
    options = {"split": "train", "revision": PUBLISHED.revision, "streaming": True}
    assert asked == [(("THUDM/LongBench-v2", None), options)]
    rows.pop()
    with pytest.raises(ValueError, match="49 rows of 'Code Repository Understanding', expected 50"):
        list(CodeQA(dataset="hub").tasks("eval"))
