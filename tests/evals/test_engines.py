"""From names to models, and how servers of our own are started."""

import pytest

from rlm_env.evals.config import load_config
from rlm_env.evals.engines import api_key, server_options
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.models import ModelRef, resolve_model, resolve_models


@pytest.fixture
def folder(tmp_path):
    """The outside of a model folder."""
    path = tmp_path / "My-Model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def config(**values):
    return load_config(None, {"environment": "x", "model": "m", "out": "o", **values})


def test_a_folder_is_a_local_model(folder):
    assert resolve_model(str(folder)) == ModelRef("My-Model", folder)


def test_with_a_base_url_a_name_is_a_name(folder):
    assert resolve_model(str(folder), "http://x/v1") == ModelRef(str(folder), base_url="http://x/v1")


def test_one_model_for_both_sides_is_one_server(folder):
    models = resolve_models(config(model=str(folder)))
    assert models["root"] is models["sub"]
    models = resolve_models(config(model=str(folder), sub_model=f"{folder}/"))
    assert models["root"] == models["sub"]


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_half_a_model_folder_says_what_is_missing(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match="is not a model folder: it has no"):
        resolve_model(str(folder))


def test_an_unknown_model_names_the_remedies():
    with pytest.raises(ConfigError) as error:
        resolve_model("no-such-model")
    assert "--base-url" in str(error.value)
    assert "hf download" in str(error.value)


def test_servers_that_share_a_gpu_share_its_memory():
    assert server_options(EngineOptions(), 1)["extra_args"] == ()
    assert server_options(EngineOptions(), 2)["extra_args"] == ("--gpu-memory-utilization", "0.45")
    own = EngineOptions(extra_args=("--gpu-memory-utilization", "0.3"))
    assert server_options(own, 2)["extra_args"] == own.extra_args


def test_a_key_comes_from_the_environment_only(monkeypatch):
    monkeypatch.setenv("RLM_ENV_TEST_KEY", "secret")
    with_key = config(base_url="http://x/v1", api_key_env="RLM_ENV_TEST_KEY")
    assert api_key(with_key) == "secret"
    assert "secret" not in str(with_key.as_toml())
    monkeypatch.delenv("RLM_ENV_TEST_KEY")
    with pytest.raises(ConfigError, match="RLM_ENV_TEST_KEY"):
        api_key(with_key)
    assert api_key(config()) is None
