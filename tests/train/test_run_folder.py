"""The folder of a training run: what it records of itself."""

from types import SimpleNamespace

import pytest
from rich.console import Console

pytest.importorskip("torch")

from rlm_env.runs.folder import read_run_config
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.run_folder import open_run


def test_engines_are_recorded_beside_versions_and_weights(tmp_path, tiny_model_path):
    config = TrainConfig.model_validate(
        {"model": str(tiny_model_path), "out": tmp_path / "run", "environments": [{"name": "oolong-rlm"}]}
    )
    learner = SimpleNamespace(version=0)
    with open_run(config, learner, Console(quiet=True), lambda *_: None, resume=False) as run:
        before = read_run_config(config.out)["record"]
        assert {"started", "model", "versions"} <= before.keys()
        run.add_to_record(engines={"policy": {"engine": "vllm", "engine_version": "0.30.0", "context_window": None}})
    after = read_run_config(config.out)["record"]
    assert after == {**before, "engines": {"policy": {"engine": "vllm", "engine_version": "0.30.0"}}}
