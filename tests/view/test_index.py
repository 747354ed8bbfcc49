"""The index of a growing file: torn and damaged lines, files that are replaced, rollouts that are repeated."""

import json
import os

import pytest

from rlm_env.contexts import CONTEXTS, ContextStore
from rlm_env.evals.outline import outline
from rlm_env.evals.rollout_stats import stats_of
from rlm_env.rollout import RecordError, Rollout, Score, Turn
from rlm_env.view.index import RolloutIndex


def line(id: str, score: float = 1.0) -> str:
    return Rollout(id, "task", score=Score(score), turns=[Turn(text="hello")]).to_json() + "\n"


@pytest.fixture
def index(tmp_path) -> RolloutIndex:
    return RolloutIndex(tmp_path / "rollouts.jsonl", stats_of, lambda rollout: rollout.id)


def test_it_grows_with_its_file(index):
    index.refresh()
    assert index.rows == []
    assert index.complete
    index.path.write_text(line("a"))
    index.refresh()
    with open(index.path, "a") as file:
        file.write(line("b") + line("c")[:30])
    index.refresh()
    assert [row["key"] for row in index.rows] == ["a", "b"]
    assert index.complete  # what is left is being written
    with open(index.path, "a") as file:
        file.write(line("c")[30:])
    index.refresh()
    assert [row["key"] for row in index.rows] == ["a", "b", "c"]
    assert index.record(2)["id"] == "c"
    assert json.loads(index.line(1))["id"] == "b"
    assert index.generation == 0


def test_a_replaced_file_is_read_anew(index):
    index.path.write_text(line("a") + line("b"))
    index.refresh()
    new = index.path.with_suffix(".tmp")
    new.write_text(line("a", 0.0) + line("b", 0.0) + line("c", 0.0))
    os.replace(new, index.path)
    index.refresh()
    assert [row["score"] for row in index.rows] == [0.0, 0.0, 0.0]
    assert index.generation == 1
    index.path.write_text(line("a"))  # cut in place
    index.refresh()
    assert (len(index.rows), index.generation) == (1, 2)


def test_a_damaged_line_is_told_and_the_others_are_there(index):
    index.path.write_text(line("a") + "{broken\n\n" + '{"schema": 1}\n' + line("b"))
    index.refresh()
    assert [row["key"] for row in index.rows] == ["a", "b"]
    assert len(index.problems) == 2
    assert "schema 1" in index.problems[1]


def test_of_a_repeated_rollout_the_last_line_counts(index):
    index.path.write_text(line("a", 0.0) + line("b") + line("a", 0.5))
    index.refresh()
    assert index.lines == {"a": 2, "b": 1}


def test_a_right_answer_is_shown_as_text_and_none_as_nothing(index):
    golds = ["7", ["é", 1], None, 0]
    records = [Rollout(str(number), "task", gold=gold, score=Score(1.0)) for number, gold in enumerate(golds)]
    index.path.write_text("".join(record.to_json() + "\n" for record in records))
    index.refresh()
    assert [row.get("gold") for row in index.rows] == ["7", '["é", 1]', None, "0"]


def test_it_stops_reading_when_its_time_is_up(index):
    index.path.write_text("".join(line(str(number)) for number in range(50)))
    index.refresh(0.0)
    assert 0 < len(index.rows) < 50
    assert 0 < index.share < 1
    while not index.complete:
        index.refresh(0.0)
    assert len(index.rows) == 50


def test_outlines_have_the_numbers_of_whole_rollouts(eval_run):
    contexts = ContextStore(eval_run / CONTEXTS)
    lines = (eval_run / "rollouts.jsonl").read_text().splitlines()
    assert len(lines) == 12
    for one in lines:
        assert stats_of(outline(one)) == stats_of(Rollout.from_json(one, contexts))


def test_an_outline_of_something_else_is_refused():
    for text, reason in [("[1]", "object"), ("{", "JSON"), ('{"schema": 2, "turns": [3]}', "damaged")]:
        with pytest.raises(RecordError, match=reason):
            outline(text)
