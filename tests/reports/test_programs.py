"""Programs by training step: shares of the rollouts of each step, of long runs a part of them."""

from __future__ import annotations

import pytest

from rlm_env.reports import programs
from rlm_env.reports.programs import programs_by_step
from rlm_env.rollout import GroupMember, RecordError, Rollout, SubCall, Turn, write_rollouts

READS = "print(context[:500])"
ASKS = 'answer["content"] = llm_batch([context[i : i + 100] for i in range(0, len(context), 100)])[0]'


def rollout(version: int, code: str | None) -> Rollout:
    place = GroupMember("a", 0, 0, None, version)
    calls = [SubCall(id=0, root_turn=0, batch=0, messages=[])] if code == ASKS else []
    turns = [Turn(code=[code] if code else [])]
    return Rollout(turns=turns, sub_calls=calls, metrics={"cells": 1.0} if code else {}, group=place)


def test_each_step_has_the_shares_of_its_rollouts(tmp_path):
    made = [rollout(0, READS), rollout(0, READS), rollout(0, ASKS), rollout(1, ASKS), rollout(1, None)]
    write_rollouts(tmp_path / "rollouts.jsonl", made)
    reads, asks = sorted(programs_by_step(tmp_path), key=lambda curve: curve.name, reverse=True)
    assert (reads.name, asks.name) == ("reads it itself", "chunk and batch")
    assert reads.points == [(0, pytest.approx(2 / 3)), (1, 0.0)]
    assert asks.points == [(0, pytest.approx(1 / 3)), (1, 1.0)]


def test_a_run_without_a_repl_or_without_rollouts_has_none(tmp_path):
    assert programs_by_step(tmp_path) == []
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout(0, None)])
    assert programs_by_step(tmp_path) == []


def test_a_long_run_is_read_in_part_and_its_steps_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "READ", 100)
    monkeypatch.setattr(programs, "POINTS", 10)
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout(n // 4, READS if n < 200 else ASKS) for n in range(400)])
    read = []
    monkeypatch.setattr(programs, "program_of", lambda one, of=programs.program_of: read.append(1) or of(one))
    asks, reads = programs_by_step(tmp_path)
    assert len(read) == 100
    assert [step for step, _ in reads.points] == [4.5 + 10 * i for i in range(10)]
    assert [share for _, share in reads.points] == [1.0] * 5 + [0.0] * 5
    assert [share for _, share in asks.points] == [0.0] * 5 + [1.0] * 5


def test_a_damaged_line_is_named(tmp_path):
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout(0, READS)])
    with open(tmp_path / "rollouts.jsonl", "a") as file:
        file.write("{}{\n")
    with pytest.raises(RecordError, match="line 2"):
        programs_by_step(tmp_path)
