"""The folder of a training run: what it records of itself."""

import contextlib
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

pytest.importorskip("torch")

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import SUMMARY, read_run_config
from rlm_env.task import Task
from rlm_env.train import run_folder
from rlm_env.train.report.metrics import METRICS
from rlm_env.train.report.tracking import TENSORBOARD, WANDB_ID
from rlm_env.train.rl import trainer
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.sampler import TaskDraw
from rlm_env.train.run_files import HELD_OUT, JOURNAL, TEACHER
from rlm_env.train.run_folder import check_run_folder, open_run


@pytest.fixture
def config(tmp_path, tiny_model_path):
    values = {"model": str(tiny_model_path), "out": tmp_path / "run", "environments": [{"name": "oolong-rlm"}]}
    return TrainConfig.model_validate(values)


def opened(config, resume=False):
    return open_run(config, SimpleNamespace(version=0, skipped=0), Console(quiet=True), lambda *_: None, resume=resume)


def write_all(folder, name):
    """A file that holds its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(name)


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


def everything_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("own_config", [None, "n = 3"])
def test_a_folder_with_somebody_s_files_is_refused_and_keeps_them(config, tiny_model_path, own_config):
    home = config.out
    shutil.copytree(tiny_model_path, home / "model")
    for name in ("weights/mine.bin", "checkpoints/notes", "tensorboard/events", "metrics.jsonl", "thesis.tex"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("mine")
    if own_config is not None:
        (home / "config.toml").write_text(own_config)
    before = everything_in(home)
    for source in (config.model, str(home / "model")):
        asked = config.model_copy(update={"model": source})
        with pytest.raises(ConfigError, match=r"holds other files \(.*\); choose a new --out"):
            check_run_folder(asked)
        with pytest.raises(ConfigError, match="holds other files"), opened(asked):
            pass
    assert everything_in(home) == before


def test_a_trained_model_is_neither_removed_nor_written_over(config):
    with opened(config) as run:
        run.finish(SimpleNamespace(version=2, skipped=0, export=lambda folder: write_all(folder, "weights")))
    for source in (config.model, str(config.out / "model")):
        with (
            pytest.raises(ConfigError, match="already holds a run"),
            opened(config.model_copy(update={"model": source})),
        ):
            pass
    assert (config.out / "model" / "weights").read_text() == "weights"
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"out: the model to begin with, .*/model, is in .* which the run writes"):
            check_run_folder(config.model_copy(update={"model": str(config.out / "model")}), resume=resume)


def test_damaged_checkpoints_alone_are_no_new_run(config):
    with opened(config):
        pass
    (config.out / "checkpoints" / "damaged-step-000001").mkdir(parents=True)
    with pytest.raises(ConfigError, match="already holds a run"), opened(config):
        pass
    assert (config.out / "checkpoints" / "damaged-step-000001").exists()


def test_a_run_that_is_begun_anew_takes_nothing_over(config):
    """Of one that was stopped before it had stored a rollout or a checkpoint."""
    with opened(config) as run, Journal(config.out) as journal:
        journal.drawn(TaskDraw(0, "oolong-rlm", -1, 100, Task("question", id="task")))
        run.metrics.write(0, {"eval/oolong-rlm/score": 0.5})
        run.metrics.write(10, {"eval/oolong-rlm/score": 1.0})
    states = (HELD_OUT, TEACHER, WANDB_ID, SUMMARY, "weights/v000000/model.safetensors", f"{TENSORBOARD}/events")
    for name in (*states, "checkpoints/.unfinished-step-000001/tensors", "notes.txt"):
        write_all((config.out / name).parent, (config.out / name).name)
    with opened(config) as run, Journal(config.out) as journal:
        assert not run.metrics.evaluated(0)
        assert not run.metrics.evaluated(10)
        assert not journal.history.drawn
    left = {str(path) for path, text in everything_in(config.out).items() if text}
    assert left == {"config.toml", "notes.txt"}


def test_all_files_of_a_run_are_known_to_one_that_begins_anew():
    """Each name that a module of training writes into a run's folder is one of those that are removed."""
    found = set()
    for path in Path(run_folder.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r'"([a-z_-]+\.jsonl)"', path.read_text()))
    assert found == {HELD_OUT, JOURNAL, METRICS, TEACHER}


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
