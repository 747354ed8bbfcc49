"""The record: JSONL in and out."""

import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.messages import Completion, Usage
from rlm_env.rollout import (
    GroupMember,
    RecordError,
    Rollout,
    Score,
    StopReason,
    SubCall,
    SubTurn,
    ToolResult,
    Turn,
    read_rollouts,
    write_rollouts,
)
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
sub_calls = st.builds(
    SubCall,
    st.integers(),
    st.integers(),
    st.integers(),
    st.just([]),
    prompt_ids=st.none() | ids,
    completion_ids=st.none() | ids,
    tool_turns=st.lists(st.builds(SubTurn, prompt_ids=st.none() | ids, completion_ids=st.none() | ids), max_size=2),
)
rollouts = st.builds(
    Rollout,
    id=st.text(),
    answer=st.text(alphabet=st.characters()),
    stop_reason=st.sampled_from(StopReason),
    turns=st.lists(turns, max_size=4),
    sub_calls=st.lists(sub_calls, max_size=2),
    score=st.none() | st.builds(Score, st.floats(0, 1)),
    group=st.none() | st.builds(GroupMember, st.text(), st.none() | st.integers()),
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
    with pytest.raises(RecordError, match=r"before 0\.2 \(schema 1\).*pip install 'rlm-env<0\.2'.*run it again"):
        Rollout.from_dict({**record, "schema": 1})
    with pytest.raises(RecordError, match="schema 99"):
        Rollout.from_dict({**record, "schema": 99})
    with pytest.raises(RecordError, match="color"):
        Rollout.from_dict({**record, "color": "red"})


@pytest.mark.parametrize(
    "damaged",
    [
        "{not json",
        "[]",
        '"text"',
        '{"schema": 2, "turns": 5, "sub_calls": [], "stop_reason": "ready"}',
        '{"schema": 2, "turns": [{"text": "no usage"}], "sub_calls": [], "stop_reason": "ready"}',
        '{"schema": 2, "turns": [], "sub_calls": [], "stop_reason": "bored"}',
        '{"schema": 2, "turns": [], "sub_calls": [], "stop_reason": "ready", "score": {"value": 7}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_line_is_named_by_file_and_number(damaged, tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text(Rollout(id="1").to_json() + "\n\n" + damaged + "\n" + Rollout(id="2").to_json() + "\n")
    reading = read_rollouts(path)
    assert next(reading).id == "1"
    with pytest.raises(RecordError, match=rf"^{path}, line 3: "):
        next(reading)


def test_a_stored_metric_that_is_no_number_is_a_failure_of_the_scorer():
    record = Rollout(id="1", answer="7", score=Score(0.5, {"f1": 1})).to_dict()
    record["score"]["metrics"]["f1"] = "x"
    found = Rollout.from_json(json.dumps(record))
    assert (found.answer, found.score) == ("7", None)
    assert found.error is not None
    assert found.error.startswith("scorer: Score.metrics['f1'] must be a finite number, got 'x'")


def test_metrics_are_floats():
    given = {"bool": True, "int": 3, "numpy": np.float32(0.5), "numpy bool": np.bool_(True), "numpy int": np.int64(2)}
    metrics = Score(1.0, given).metrics
    assert metrics == {"bool": 1.0, "int": 3.0, "numpy": 0.5, "numpy bool": 1.0, "numpy int": 2.0}
    assert {type(value) for value in metrics.values()} == {float}
    json.dumps(metrics)


@pytest.mark.parametrize("metrics", ["x", [("a", 1.0)], {1: 1.0}, None])
def test_metrics_are_a_dict_by_name(metrics):
    with pytest.raises(ValueError, match=r"Score\.metrics"):
        Score(1.0, metrics)


def test_a_count_of_repeated_prompt_ids_that_does_not_fit_is_damage():
    turns = [Turn(prompt_ids=[1, 2], completion_ids=[3]), Turn(prompt_ids=[1, 2, 3, 4], completion_ids=[5])]
    record = Rollout(turns=turns).to_dict()
    assert record["turns"][1]["prompt_prefix"] == 3
    record["turns"][1]["prompt_prefix"] = 2
    with pytest.raises(RecordError, match="prompt_prefix is 2, but 3 tokens precede it"):
        Rollout.from_dict(record)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), nested(5000)])
def test_what_has_no_json_form_is_refused_by_name(value, tmp_path: Path):
    with pytest.raises(RecordError, match="rollout 'r7' cannot be stored as JSON"):
        Rollout(id="r7", info={"task": {"value": value}}).to_json()


def test_a_record_is_not_changed_by_reading_it():
    call = SubCall(0, 0, 0, [], tool_turns=[SubTurn(prompt_ids=[1], completion_ids=[2])])
    call.prompt_ids, call.completion_ids = [1, 2, 3], [4]
    record = Rollout(sub_calls=[call], turns=[Turn(tool_results=[ToolResult("look", "{}")])]).to_dict()
    before = json.dumps(record)
    Rollout.from_dict(record)
    assert json.dumps(record) == before


def test_a_reply_keeps_all_that_the_engine_returned():
    completion = Completion("text", [{"id": "1"}], "thought", "stop", [1], [2], [-0.5], Usage(1, 1, 0, 1))
    call = SubCall(0, 0, 0, [])
    call.take(completion)
    for reply in (Turn.from_completion(completion, root_seconds=2.0), SubTurn.from_completion(completion), call):
        for name in ("text", "tool_calls", "reasoning", "finish_reason", "prompt_ids", "completion_ids", "logprobs"):
            assert getattr(reply, name) == getattr(completion, name)
    assert call.usage == Usage(), "the caller counts the usage of the whole call"
    assert Turn.from_completion(completion, root_seconds=2.0).root_seconds == 2.0


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


def test_an_endless_split_is_no_dataset_without_a_limit(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr("rlm_env.task.MOST_ROWS", 3)
    tasks = Tasks(lambda: (Task("Q?", "c" * 100) for _ in count()), "train")
    with pytest.raises(ValueError, match=r"'train' has more than 3 tasks, and may be endless: to_dataset\(limit=...\)"):
        tasks.to_dataset()
    assert len(tasks.to_dataset(limit=5)) == 5
    monkeypatch.setattr("rlm_env.task.MOST_CHARS", 150)
    with pytest.raises(ValueError, match="more than 1 tasks"):
        tasks.to_dataset()
