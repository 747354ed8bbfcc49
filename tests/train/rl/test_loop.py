"""A whole live run, from its config to the trained model, with engine and rollouts by script and the real learner.

What is trained, published, evaluated and logged, in which order. The real vLLM and REPL are in `test_live.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json

import pytest
from rich.console import Console

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlm_env.rollout import Rollout, Turn, read_rollouts  # noqa: E402
from rlm_env.runs.errors import RunStopped  # noqa: E402
from rlm_env.train.report.metrics import read_metrics  # noqa: E402
from rlm_env.train.rl import trainer  # noqa: E402
from rlm_env.train.rl.config import TrainConfig  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402
from tests.train import scheduling  # noqa: E402
from tests.train.sync.test_engine_watch import text  # noqa: E402

STEPS = 4


class Scaffold(scheduling.Scaffold):
    """Each rollout is one turn of three tokens; the odd members score 1. Held-out rollouts take `seconds`."""

    seconds = 0.0

    def tasks(self, split):
        return EnvironmentMix(self).tasks("scripted", -1)

    async def rollout(self, task, llm, sub=None, *, id, context):
        if id.split("/")[0] in map(str, range(STEPS + 1)):
            await asyncio.sleep(self.seconds)
        found = await super().rollout(task, llm, id=id, context=context)
        size = 1 + int(id.rpartition("/")[2]) % 3
        turn = Turn(prompt_ids=[1, 2], completion_ids=[5] * size, logprobs=[-6.0] * size, finish_reason="stop")
        return Rollout(id=id, task_id=task.id, answer=found.answer, question=task.question, turns=[turn])


class EnvironmentMix(scheduling.EnvironmentMix):
    labels = ("scripted",)

    def held_out(self, name):
        return self._scaffold

    async def aclose(self):
        pass


class Engine(scheduling.Engine):
    """Takes new weights at once."""

    windows = (64,)
    judge = None

    @property
    def followed(self):
        return [self]

    async def statistics(self, engine):
        assert engine is self
        return text(running=2.0, queries=10.0, hits=5.0)


class Sync:
    """Publishes, and notes what was evaluated before each update."""

    def __init__(self, events):
        self.events = events

    async def start(self, learner, engine):
        self.engine = engine
        engine.version = learner.version
        return {"sync_mean_abs": 0.0}

    async def publish(self, version, learner_free):
        learner_free.set()
        await asyncio.sleep(0.01)
        self.events.append(("published", version))
        self.engine.version = version
        return {"sync_mean_abs": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small", hidden=32, layers=2)


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """Runs a config with these changes; returns the events and the scaffold."""

    def go(scaffold=None, resume=False, **changes):
        scaffold, events, engine = scaffold or Scaffold(), [], Engine()

        @contextlib.asynccontextmanager
        async def started(self, model):
            yield engine

        async def nothing(_):
            return {}

        monkeypatch.setattr(trainer, "EnvironmentMix", lambda *_: EnvironmentMix(scaffold))
        monkeypatch.setattr(trainer, "check_template", lambda *_: True)
        monkeypatch.setattr(trainer, "FleetSync", lambda *_: Sync(events))
        monkeypatch.setattr(trainer, "describe_engines", nothing)
        monkeypatch.setattr(trainer._Run, "_engines", started)
        values = {
            "model": str(model),
            "out": str(tmp_path / "out"),
            "steps": STEPS,
            "environments": [{"name": "needle-rlm", "label": "scripted"}],
            "groups": {"size": 4, "per_step": 2, "concurrency": 8},
            "trainer": {"dtype": "float32", "device": "cpu", "pack_tokens": 64, "threads": 1},
            "engine": {"max_model_len": 64},
            "held_out": {"every": 2, "n": 3},
            "checkpoint": {"every": 2},
            **changes,
        }
        config, console = TrainConfig.model_validate(values), Console(file=io.StringIO(), width=200)
        with pytest.MonkeyPatch.context() as patch:  # a run that hangs is stopped as by Ctrl-C
            patch.setattr(trainer, "interruptible", lambda work: asyncio.wait_for(work, 60))
            trainer.train(config, console, trainer.TrainOptions(resume=resume))
        return events, scaffold, console.file.getvalue()

    return go


def test_a_run_trains_publishes_evaluates_and_logs(run, tmp_path):
    events, _, told = run(tensorboard=None)
    assert events == [("published", version) for version in range(1, STEPS + 1)]
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    evaluations = [line for line in lines if "eval/scripted/score" in line]
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    ranges = [tuple(line[f"eval/scripted/policy_version/{end}"] for end in ("min", "max")) for line in evaluations]
    assert ranges[0] == (0, 0)
    assert 2 <= ranges[1][0] <= ranges[1][1]
    assert ranges[2] == (4, 4)
    for name in (
        "reward_std",
        "advantage/std",
        "completions/mean_length",
        "root/completions/clipped_ratio",
        "stop_condition/ready",
        "sampling/importance_sampling_ratio/max",
        "perf/throughput",
        "perf/peak_memory",
        "inference/num_requests_running/mean",
        "sync_mean_abs",
        "idle/trainer",
    ):
        assert any(name in line for line in steps), name
    assert "held out after 4 steps: scripted" in told
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["steps"] == STEPS
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    places = [rollout.group for rollout in read_rollouts(tmp_path / "out" / "rollouts.jsonl")]
    assert all(place.policy_version <= place.last_policy_version for place in places)


@pytest.mark.slow
def test_an_evaluation_that_takes_long_holds_up_no_step(run, tmp_path):
    """The one after two steps is still running when the last step is done; the first update waited for the first."""
    scaffold = Scaffold()
    scaffold.seconds = 0.5
    run(scaffold)
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    order = [(line["step"], "eval/scripted/score" in line) for line in lines]
    assert order.index((0, True)) < order.index((2, False))
    assert order.index((2, True)) > order.index((4, False))
    assert order[-1] == (4, True)
    late = next(line for line in lines if (line["step"], "eval/scripted/score" in line) == (2, True))
    assert late["eval/scripted/policy_version/max"] > 2
    assert sum(line.get("seconds/wait", 0) for line in lines) < 1.5


def test_an_evaluation_that_fails_stops_the_run_and_a_resumed_one_makes_it(run, tmp_path):
    class Lost(Scaffold):
        async def rollout(self, task, llm, sub=None, *, id, context):
            if id.startswith("2/"):
                raise scheduling.DEAD
            if id >= "000004/":  # a rollout of the third step, which comes to no end before the evaluation does
                await asyncio.Event().wait()
            return await super().rollout(task, llm, id=id, context=context)

    async def never(self):
        raise scheduling.DEAD

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "restart", never)
        with pytest.raises(RunStopped, match="no engine"):
            run(Lost())
    run(resume=True)
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert sorted(line["step"] for line in lines if "loss" in line) == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "eval/scripted/score" in line] == [0, 2, 4]


def test_a_run_that_was_killed_in_its_first_step_evaluates_the_initial_weights(run, tmp_path, monkeypatch):
    """It has a batch in its journal, and no checkpoint."""

    def killed(*_):
        raise RuntimeError("killed")

    scaffold = Scaffold()
    scaffold.seconds = 60.0
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Learner, "step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(scaffold)
    assert not read_metrics(tmp_path / "out" / "metrics.jsonl")
    told = run(resume=True)[2]
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    evaluations = [line for line in lines if "eval/scripted/score" in line]
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    assert [evaluations[0][f"eval/scripted/policy_version/{end}"] for end in ("min", "max")] == [0, 0]
    assert [line["replayed"] for line in lines if "loss" in line] == [1, 0, 0, 0]
    assert "were not evaluated" not in told


def test_a_run_without_an_evaluation_of_the_initial_weights_says_so(run, tmp_path):
    run(steps=2, held_out={"every": 2, "n": 0})
    told = run(resume=True)[2]
    evaluations = [line["step"] for line in read_metrics(tmp_path / "out" / "metrics.jsonl") if "loss" not in line]
    assert evaluations == [2, 4]
    assert "the initial weights were not evaluated before the first step" in " ".join(told.split())
