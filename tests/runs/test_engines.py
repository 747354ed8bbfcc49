"""The engines of a run: how local servers are started, where keys come from."""

import pytest

from rlm_env.evals.config import load_eval_config
from rlm_env.runs.engines import server_options, share_devices
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.options import EngineOptions


def config(**values):
    return load_eval_config(None, {"environments": [{"name": "x"}], "model": "m", "out": "o", **values})


def test_servers_that_share_a_gpu_share_its_memory():
    assert server_options(EngineOptions(), 1)["extra_args"] == ()
    assert server_options(EngineOptions(), 2)["extra_args"] == ("--gpu-memory-utilization", "0.45")
    for words in (("--gpu-memory-utilization", "0.3"), ("--gpu_memory_utilization=0.3",)):
        own = EngineOptions(extra_args=words)
        assert server_options(own, 2)["extra_args"] == words


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [(None, None, True), ((0, 1), None, True), ((0, 1), (1, 2), True), ((0, 1), (2, 3), False), ((0,), ("0",), True)],
)
def test_servers_on_gpus_of_their_own_share_no_memory(first, second, shared):
    assert share_devices(EngineOptions(devices=first), EngineOptions(devices=second)) is shared


def test_a_key_comes_from_the_environment_only(monkeypatch):
    monkeypatch.setenv("RLM_ENV_TEST_KEY", "secret")
    with_key = config(base_url="http://x/v1", api_key_env="RLM_ENV_TEST_KEY")
    assert with_key.root.key() == "secret"
    assert "secret" not in str(with_key.as_toml())
    monkeypatch.delenv("RLM_ENV_TEST_KEY")
    with pytest.raises(ConfigError, match="RLM_ENV_TEST_KEY"):
        with_key.root.key()
    assert config().root.key() is None
