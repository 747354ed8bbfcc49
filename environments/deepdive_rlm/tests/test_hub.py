"""The published questions: columns, splits, pins."""

from __future__ import annotations

import pytest

from deepdive_rlm import DeepDive
from rlm_env.rollout import Rollout
from tests.published_rows import write_rows

pytest.importorskip("datasets")
ROWS = [
    {"id": 7, "question": "Which city? ", "answer": "Velstad", "conversations": []},
    {"id": 9, "question": "On what date?", "answer": "March 28, 1959", "conversations": []},
]


def test_rows_are_tasks(tmp_path):
    write_rows(tmp_path / "qa_rl.jsonl", ROWS)
    write_rows(tmp_path / "qa_sft.jsonl", ROWS[:1])
    env = DeepDive(dataset="hub", files=tmp_path)
    first, second = env.tasks("train")
    assert first.id == "hub-qa_rl-7"
    assert first.question == "Which city? Give your final answer in the form 'Answer: ...'."
    assert (first.context, first.gold) == ("", "Velstad")
    assert [task.id for task in env.tasks("eval")] == ["hub-qa_sft-7"]
    assert env.score(first, Rollout.from_answer(first, env.perfect_answer(first))).value == 1.0
    assert env.score(second, Rollout.from_answer(second, "Answer: 28 March 1959")).value == 1.0
    assert env.score(second, Rollout.from_answer(second, "Answer: 27 March 1959")).value == 0.0
    assert env.score(second, Rollout.from_answer(second, "")).value == 0.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "question": "Q?"}, r"missing \['answer'\]"),
        ({"id": 1, "question": "Q?", "answer": " "}, "expected a non-empty str"),
        ({"id": "x", "question": "Q?", "answer": "A"}, "has id = 'x'"),
    ],
)
def test_other_rows_are_refused(tmp_path, row, message):
    write_rows(tmp_path / "qa_rl.jsonl", [row])
    with pytest.raises(ValueError, match=message):
        DeepDive(dataset="hub", files=tmp_path).tasks("train").take(1)


def test_revisions_are_commits(tmp_path):
    with pytest.raises(ValueError, match="'main' is not a commit"):
        DeepDive(dataset="hub", revision="main").tasks("train").take(1)
