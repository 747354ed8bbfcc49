"""Trackers: the same numbers over steps, each once, a table of rollouts, and what is missing is named."""

import io
import sys

import pytest
from rich.console import Console

from rlm_env.rollout import GroupMember, Rollout, Score, SubCall, Turn
from rlm_env.runs.errors import ConfigError
from rlm_env.train.report.metrics import MetricsLog
from rlm_env.train.report.tracking import TensorboardConfig, WandbConfig
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.groups import Batch, RolloutGroup
from rlm_env.train.rl.shown_rollouts import rollout_rows

OFFLINE = WandbConfig(project="rlm", mode="offline", rollouts=2, rollouts_every=2)


class Run:
    """In place of a run of Weights & Biases."""

    def __init__(self):
        self.axes, self.logged = {}, []

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, line):
        self.logged.append(line)

    def finish(self):
        pass


@pytest.fixture
def wandb_run(monkeypatch):
    wandb = pytest.importorskip("wandb")
    run = Run()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    return run


def quiet():
    return Console(file=io.StringIO())


def batch(step=3):
    config = TrainConfig.model_validate({"model": "m", "out": "o", "environments": [{"name": "a"}]})

    def rollout(score):
        return Rollout(
            question="How many?",
            gold=3,
            answer=str(score),
            messages=[{"role": "system", "content": "Write code."}, {"role": "assistant", "content": "print(1)\n" * 4}],
            turns=[Turn(completion_ids=[1])],
            sub_calls=[SubCall(i, 0, 0, [{"role": "user", "content": f"part {i}"}], text="two") for i in range(5)],
            score=None if score is None else Score(score),
            group=GroupMember("a", group=7, policy_version=1),
        )

    return Batch(step, [RolloutGroup(7, "a", config, [rollout(1.0), rollout(0.0), rollout(None)])])


def test_a_row_says_what_was_asked_done_and_worth():
    rows = rollout_rows(batch(), 9)
    assert len(rows) == 2  # a rollout without a reward taught nothing
    assert rows == rollout_rows(batch(), 9)
    (solved,) = (row for row in rows if row["reward"] == 1.0)
    assert (solved["advantage"], solved["off_policy_steps"], solved["group"], solved["gold"]) == (0.5, 1, 7, "3")
    assert "[assistant]\nprint(1)" in solved["conversation"]
    assert "part 2" in solved["conversation"]
    assert "[and 2 more sub-calls]" in solved["conversation"]
    assert len(rollout_rows(batch(), 1)) == 1


def test_wandb_draws_over_steps_and_gets_rollouts_to_read(tmp_path, wandb_run):
    asked = []

    def rows(count):
        asked.append(count)
        return rollout_rows(batch(), count)

    with MetricsLog(tmp_path, quiet(), wandb=OFFLINE) as metrics:
        metrics.write(0, {"eval/e/score": 0.5})
        for step in (1, 2, 3, 4):
            metrics.write(step, {"loss": 0.5})
            metrics.show_rollouts(step, rows)
    assert wandb_run.axes == {"step": None, "*": "step"}
    tables = [line for line in wandb_run.logged if "rollouts" in line]
    assert [line["step"] for line in tables] == [1, 2, 4]
    assert asked == [2, 2, 2]
    assert "conversation" in tables[0]["rollouts"].columns
    assert len(tables[0]["rollouts"].data) == 2
    assert [line["step"] for line in wandb_run.logged if "rollouts" not in line] == [0, 1, 2, 3, 4]


def test_a_step_that_is_done_again_is_logged_once_and_a_new_tracker_gets_all(tmp_path, wandb_run):
    with MetricsLog(tmp_path, quiet()) as metrics:
        metrics.write(1, {"loss": 1.0})
        metrics.write(2, {"loss": 2.0})
    for last in (3, 4):  # killed twice before the second step was in a checkpoint
        with MetricsLog(tmp_path, quiet(), trained=1, wandb=OFFLINE) as metrics:
            for step in range(2, last + 1):
                metrics.write(step, {"loss": float(step)})
                metrics.show_rollouts(step, lambda count: rollout_rows(batch(), count))
    numbers = [(line["step"], line["loss"]) for line in wandb_run.logged if "rollouts" not in line]
    assert numbers == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert [line["step"] for line in wandb_run.logged if "rollouts" in line] == [2, 4]


def test_tensorboard_has_the_same_numbers_and_the_rollouts(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = TensorboardConfig(rollouts=2, rollouts_every=2)
    for trained in (0, 1):
        with MetricsLog(tmp_path, quiet(), trained=trained, tensorboard=shown) as metrics:
            for step in (1, 2):
                metrics.write(step, {"loss": step / 4})
                metrics.show_rollouts(step, lambda count: rollout_rows(batch(), count))
            metrics.write(1 + trained, {"eval/e/score": 0.75})
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 0.25), (2, 0.5)]
    assert [event.step for event in found.Scalars("eval/e/score")] == [1, 2]
    texts = [tag for tag in found.Tags()["tensors"] if tag.startswith("rollouts/")]
    assert len(texts) == 2
    assert [event.step for event in found.Tensors(texts[0])] == [1, 2]
    text = found.Tensors(texts[0])[0].tensor_proto.string_val[0].decode()
    assert "print(1)" in text
    assert "reward" in text


@pytest.mark.parametrize(
    ("module", "settings"),
    [("wandb", {"wandb": OFFLINE}), ("torch.utils.tensorboard", {"tensorboard": TensorboardConfig()})],
)
def test_a_tracker_that_is_missing_is_named_with_the_remedy(tmp_path, monkeypatch, module, settings):
    monkeypatch.setitem(sys.modules, module, None)
    (name,) = settings
    with pytest.raises(ConfigError, match=rf"pip install 'rlm-env\[{name}\]'"):
        MetricsLog(tmp_path, quiet(), **settings)
