"""The folder of a training run: what it records of itself."""

import contextlib
from types import SimpleNamespace

import pytest
from rich.console import Console

pytest.importorskip("torch")

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import read_run_config
from rlm_env.train import run_folder
from rlm_env.train.rl import trainer
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.run_folder import check_run_folder, open_run


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


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "locked").mkdir()
    base = {"model": "tiny-rlm", "environments": [{"name": "n"}]}
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.os, "access", lambda path, _: path.name != "locked")  # which root may write to
        for out, message in (
            ("file", "cannot be a folder"),
            ("file/a/b", "file is a file"),
            ("locked/a", "locked does not allow it"),
        ):
            with pytest.raises(ConfigError, match=message):
                check_run_folder(TrainConfig.model_validate({**base, "out": tmp_path / out}))
    check_run_folder(TrainConfig.model_validate({**base, "out": tmp_path / "new" / "run"}))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, tracker):
    values = {"model": "tiny-rlm", "environments": [{"name": "n"}], "out": tmp_path}
    values[tracker] = {"project": "p"} if tracker == "wandb" else {}
    config = TrainConfig.model_validate(values)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_run_folder(config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"{tracker} is configured and not installed: pip install"):
        check_run_folder(config)
