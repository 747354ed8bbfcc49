"""The journal of a run: a line that does not follow from those before is damage, and is named."""

import json

import pytest

from rlm_env.runs.errors import ConfigError
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.journal import read_journal
from tests.train.scheduling import Scaffold, config, scheduling, train_one


def drawn(group):
    return {"event": "drawn", "group": group, "environment": "a", "stage": -1, "index": group, "task_id": str(group)}


def batch(step, *groups):
    return {"event": "batch", "step": step, "groups": list(groups)}


def dropped(group):
    return {"event": "dropped", "group": group, "reason": DropReason.FAILED}


def written(path, events):
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


BEGIN = [drawn(0), drawn(1), drawn(2), drawn(3), batch(1, 0, 1), dropped(2)]


def test_what_was_neither_trained_nor_dropped_is_open(tmp_path):
    history = read_journal(written(tmp_path / "journal.jsonl", [*BEGIN, drawn(4), batch(2, 4)]))
    assert (history.open, history.batches, history.dropped) == ([3], {1: [0, 1], 2: [4]}, {2})


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (batch(2, 3, 0), r"trained or dropped before: \[0\]"),
        (batch(2, 2), r"trained or dropped before: \[2\]"),
        (dropped(1), r"trained or dropped before: \[1\]"),
        (dropped(2), r"trained or dropped before: \[2\]"),
        (batch(2, 3, 3), r"its groups are \[3, 3\]"),
        (batch(2), r"its groups are \[\]"),
        (batch(3, 3), "step 3 where step 2 was expected"),
        (batch(1, 3), "step 1 where step 2 was expected"),
        (batch(True, 3), "True is no whole number"),
        (batch(2, 7), r"not drawn: \[7\]"),
        (drawn(3), "group 3 where group 4 was expected"),
        (drawn(5), "group 5 where group 4 was expected"),
    ],
)
def test_a_line_that_does_not_follow_is_named(tmp_path, event, message):
    path = written(tmp_path / "journal.jsonl", [*BEGIN, event])
    with pytest.raises(ConfigError, match=rf"journal\.jsonl, line 7 is damaged: .*{message}"):
        read_journal(path)


async def test_a_journal_that_has_lost_the_steps_of_the_weights_is_no_run_to_go_on_with(tmp_path):
    """Their groups would count as open, and be trained twice."""
    async with scheduling(tmp_path, config(), Scaffold()) as (scheduler, engine):
        for _ in range(2):
            await train_one(scheduler, engine)
    path = tmp_path / "journal.jsonl"
    lines = [line for line in path.read_text().splitlines() if '"step":2' not in line]
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ConfigError, match=r"journal\.jsonl has 1 steps, and the weights have seen 2: .* another --out"):
        async with scheduling(tmp_path, config(), Scaffold(), trained=2):
            pass
