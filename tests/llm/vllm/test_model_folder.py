"""Finding a model on disk, and naming what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_env.llm.vllm.model_folder import ModelNotFound, find_model
from tests.llm.vllm.processes import make_folder


def test_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_model(make_folder(tmp_path / "tiny"))
    assert (folder.name, folder.dtype, folder.context_window, folder.weight_bytes) == ("tiny", "float32", 64, 8)
    monkeypatch.chdir(tmp_path / "tiny")
    assert find_model(".").name == "tiny"


def test_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"'.*nowhere' not found: expected a folder with config\.json"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match="some-org/some-model"):
        find_model("some-org/some-model")
    (tmp_path / "file.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="is a file"):
        find_model(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("name", "says"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no a tokenizer")],
)
def test_model_folder_that_lacks_something(tmp_path: Path, name: str, says: str) -> None:
    folder = make_folder(tmp_path / "tiny")
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=f"is not a model folder: it has {says}"):
        find_model(folder)
