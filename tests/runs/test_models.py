"""From the name that a user gives to a model."""

import pytest

from rlm_env.runs.engine_table import EngineEntry, by_role
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.models import ModelRef, resolve_engines, resolve_model
from rlm_env.runs.profile import load_profile


@pytest.fixture
def folder(tmp_path):
    """The outside of a model folder."""
    path = tmp_path / "My-Model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def test_a_folder_is_a_local_model(folder):
    assert resolve_model(str(folder)) == ModelRef("My-Model", folder)


def test_with_a_base_url_a_name_is_a_name(folder):
    assert resolve_model(str(folder), "http://x/v1") == ModelRef(str(folder), base_url="http://x/v1")


def test_one_model_for_both_sides_is_one_server(folder):
    models = resolve_engines(by_role([EngineEntry(model=str(folder))]))
    assert models["root"] is models["sub"]
    both = [EngineEntry(model=str(folder), roles=("root",)), EngineEntry(model=f"{folder}/", roles=("sub",))]
    models = resolve_engines(by_role(both))
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


def test_the_tokens_of_an_endpoint_name_a_model_as_its_own_name_does(tmp_path):
    def entry(tokens: str) -> EngineEntry:
        return EngineEntry(model="remote", base_url="http://x/v1", tokens=tokens)

    found = resolve_engines(by_role([entry("tiny-rlm")]))["root"]
    assert (found.name, found.folder, found.base_url) == ("remote", None, "http://x/v1")
    assert found.profile_folder is not None
    assert load_profile(found.profile_folder)["prompt"] == "tiny"  # the defaults that suit the model hold there too
    with pytest.raises(ConfigError, match=r"tokens: .*\n.*tiny-rlm"):
        resolve_engines(by_role([entry("tiny-rlmm")]))
