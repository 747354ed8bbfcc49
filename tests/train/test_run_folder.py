"""The folder of a training run: what it records of itself."""

import contextlib
from types import SimpleNamespace

import pytest
from rich.console import Console

pytest.importorskip("torch")

from rlm_env.runs.folder import read_run_config
from rlm_env.train.rl import trainer
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.run_folder import open_run


@pytest.fixture
def config(tmp_path, tiny_model_path):
    values = {"model": str(tiny_model_path), "out": tmp_path / "run", "environments": [{"name": "oolong-rlm"}]}
    return TrainConfig.model_validate(values)


def test_engines_are_recorded_beside_versions_and_weights(config):
    learner = SimpleNamespace(version=0)
    with open_run(config, learner, Console(quiet=True), lambda *_: None, resume=False) as run:
        before = read_run_config(config.out)["record"]
        assert {"started", "model", "versions"} <= before.keys()
        run.add_to_record(engines={"policy": {"engine": "vllm", "engine_version": "0.30.0", "context_window": None}})
    after = read_run_config(config.out)["record"]
    assert after == {**before, "engines": {"policy": {"engine": "vllm", "engine_version": "0.30.0"}}}


async def test_a_resumed_run_goes_on_with_the_events_of_its_engines(config, monkeypatch):
    fleets = []

    @contextlib.asynccontextmanager
    async def open_fleet(config, model, console, tell):
        fleets.append(SimpleNamespace(events=[], tell=tell))
        yield fleets[-1]

    monkeypatch.setattr(trainer, "open_fleet", open_fleet)
    learner = SimpleNamespace(version=0)
    for resume in (False, True):
        with open_run(config, learner, Console(quiet=True), lambda *_: None, resume=resume) as opened:
            async with trainer._Run(opened, trainer.TrainOptions(), learner)._engines(config.out) as fleet:
                for what in ("dies", "is back"):
                    fleet.events.append({"engine": "first", "what": what})
                    fleet.tell(f"engine first {what}")
    assert len(fleets) == 2
    record = read_run_config(config.out)["record"]
    assert [event["what"] for event in record["engine_events"]] == ["dies", "is back"] * 2
