"""The record: JSONL in and out."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, Score, StopReason, SubCall, Turn, read_rollouts, write_rollouts
from rlm_env.task import Task, Tasks

ids = st.lists(st.integers(0, 99), max_size=8)
turns = st.builds(
    Turn,
    text=st.text(),
    prompt_ids=st.none() | ids,
    completion_ids=st.none() | ids,
    logprobs=st.none() | st.lists(st.floats(-9, 0), max_size=8),
    usage=st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
)
rollouts = st.builds(
    Rollout,
    id=st.text(),
    answer=st.text(alphabet=st.characters()),
    stop_reason=st.sampled_from(StopReason),
    turns=st.lists(turns, max_size=4),
    sub_calls=st.lists(st.builds(SubCall, st.integers(), st.integers(), st.integers(), st.just([])), max_size=2),
    score=st.none() | st.builds(Score, st.floats(0, 1)),
)


@given(rollouts)
def test_a_rollout_survives_json(rollout):
    assert Rollout.from_json(rollout.to_json()) == rollout


def test_repeated_prompt_ids_are_stored_once():
    first = Turn(prompt_ids=list(range(1000)), completion_ids=[1, 2])
    second = Turn(prompt_ids=[*range(1000), 1, 2, 7], completion_ids=[3])
    third = Turn(prompt_ids=[*range(1000), 1, 2, 7, 3, 8], completion_ids=[4])
    forked = Turn(prompt_ids=[5, 5], completion_ids=[6])
    rollout = Rollout(turns=[first, second, third, forked])
    stored = [turn["prompt_ids"] for turn in rollout.to_dict()["turns"]]
    assert stored == [list(range(1000)), [7], [8], [5, 5]]
    assert Rollout.from_json(rollout.to_json()) == rollout


def test_lone_surrogates_survive(tmp_path: Path):
    write_rollouts(tmp_path / "r.jsonl", [Rollout(answer="a\ud800b")])
    assert next(read_rollouts(tmp_path / "r.jsonl")).answer == "a\ud800b"


def test_a_cut_last_line_is_left_out(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    write_rollouts(path, [Rollout(id="1"), Rollout(id="2")])
    path.write_text(path.read_text()[:-5])
    assert [rollout.id for rollout in read_rollouts(path)] == ["1"]


def test_other_schemas_and_fields_are_refused():
    record = Rollout().to_dict()
    with pytest.raises(ValueError, match="schema 99"):
        Rollout.from_dict({**record, "schema": 99})
    with pytest.raises(ValueError, match="color"):
        Rollout.from_dict({**record, "color": "red"})


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_scores_outside_the_unit_interval_are_refused(value):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Score(value)


def test_from_answer():
    rollout = Rollout.from_answer(Task("Q?", id="t"), "text")
    assert (rollout.task_id, rollout.answer) == ("t", "text")


@pytest.mark.parametrize("context", [5, None, 1.5, iter("abc"), object(), {1, 2}])
def test_a_context_of_another_type_is_refused_with_the_remedy(context):
    with pytest.raises(TypeError, match=rf"got {type(context).__name__}.*convert it first"):
        Task("Q?", context)


def test_an_empty_question_is_refused():
    with pytest.raises(ValueError, match="question"):
        Task("")


def test_tasks_are_numbered_lazy_and_iterable_again():
    made = []

    def endless():
        while True:
            made.append(1)
            yield Task("Q?", gold="g")

    tasks = Tasks(endless, "eval")
    assert [task.id for task in tasks.take(2)] == ["eval-0", "eval-1"]
    assert [task.id for task in tasks.take(3)] == ["eval-0", "eval-1", "eval-2"]
    assert len(made) <= 7
    with pytest.raises(ValueError, match="at least 1"):
        tasks.take(0)


def test_tasks_to_dataset():
    pytest.importorskip("datasets")
    data = Tasks(lambda: [Task("Q?", {"a": [1]}, gold=3, info={"k": 1})], "eval").to_dataset()
    assert data[0] == {"id": "eval-0", "question": "Q?", "context": '{"a": [1]}', "gold": "3", "info": '{"k": 1}'}
    assert json.loads(data[0]["info"]) == {"k": 1}
