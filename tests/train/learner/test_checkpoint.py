"""Checkpoints: whole or not there, the last few kept, and a learner that goes on to the bit."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.train.learner.checkpoint import Checkpoints, atomic_folder


class Stub:
    """Writes what it is; stands for a learner where only files matter."""

    def __init__(self, value=0, error=None):
        self.value, self.error = value, error

    def save(self, folder):
        (folder / "value").write_text(str(self.value))
        if self.error:
            raise self.error

    def load(self, folder):
        self.value = int((folder / "value").read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_with_its_extra(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.latest() is None
    path = checkpoints.save(3, Stub(7), {"sampler": [1, 2], "text": "é"})
    assert path == checkpoints.latest() == tmp_path / "checkpoints" / "step-000003"
    found = Stub()
    assert checkpoints.load(found, path) == {"sampler": [1, 2], "text": "é"}
    assert found.value == 7


def test_the_newest_are_kept_by_step_not_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 999_999, 20, 1_000_000):
        checkpoints.save(step, Stub(step), {})
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert checkpoints.latest().name == "step-1000000"


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, Stub(1), {})
    checkpoints.save(1, Stub(2), {"again": True})
    found = Stub()
    assert checkpoints.load(found, checkpoints.latest()) == {"again": True}
    assert found.value == 2
    assert names(tmp_path) == ["step-000001"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunStopped),
        (RuntimeError("a mistake of ours"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_save_that_fails_leaves_the_last_one(tmp_path, error, raised):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, Stub(1), {})
    with pytest.raises(raised):
        checkpoints.save(2, Stub(2, error), {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(3, Stub(3), {"path": tmp_path})
    assert names(tmp_path) == ["step-000001"]


def test_what_is_no_checkpoint_is_not_taken_for_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, Stub(1), {})
    for name in ("step-000002.tmp", ".unfinished-step-000003", "step-4", "notes"):
        (tmp_path / name).mkdir()
    assert checkpoints.latest().name == "step-000001"
    checkpoints.prune()
    assert names(tmp_path) == ["notes", "step-000001", "step-000002.tmp", "step-4"]


def test_an_error_while_replacing_a_folder_changes_nothing(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("old")
    with pytest.raises(IsADirectoryError), atomic_folder(tmp_path / "out") as folder:
        folder.write_text("new")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "old"


def write_contents(text):
    return lambda folder: (folder / "contents.json").write_text(text)


def unreadable(folder):
    """Reading it fails with EIO, as on a broken disk."""
    (folder / "value").unlink()
    (folder / "value").symlink_to("/proc/self/mem")


def a_folder(folder):
    (folder / "value").unlink()
    (folder / "value").mkdir()


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("step 2")


DAMAGE = {
    "flipped": lambda folder: (folder / "value").write_text("1003"),
    "cut": lambda folder: (folder / "value").write_text("10"),
    "gone": lambda folder: (folder / "value").unlink(),
    "unreadable": unreadable,
    "a folder": a_folder,
    "a file": a_file,
    "all gone": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no contents": lambda folder: (folder / "contents.json").unlink(),
    "contents cut": write_contents('{"extra": {}, "sha2'),
    "contents empty": write_contents(""),
    "contents no text": lambda folder: (folder / "contents.json").write_bytes(b"\xff\xfe\x00"),
    "contents deep": write_contents("[" * 100_000),
    "a list": write_contents("[]"),
    "a text": write_contents('"sha256"'),
    "null": write_contents("null"),
    "no hashes": write_contents('{"extra": {}}'),
    "no extra": write_contents('{"sha256": {"value": "0"}}'),
    "hashes null": write_contents('{"extra": {}, "sha256": null}'),
    "hashes a list": write_contents('{"extra": {}, "sha256": ["value"]}'),
    "hash null": write_contents('{"extra": {}, "sha256": {"value": null}}'),
    "hash a list": write_contents('{"extra": {}, "sha256": {"value": [1]}}'),
    "no files": write_contents('{"extra": {}, "sha256": {}}'),
    "impossible name": write_contents('{"extra": {}, "sha256": {"a\\u0000b": "0"}}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, keep=2)
    newest = tmp_path / "step-000002"
    checkpoints.save(1, Stub(1001), {})
    for time in (1, 2):  # the second time at the same step, after the run has come there again
        checkpoints.save(2, Stub(1002), {})
        DAMAGE[damage](newest)
        said, found = [], Stub()
        assert checkpoints.restore(found, said.append) == tmp_path / "step-000001"
        assert found.value == 1001
        assert len(said) == 1
        assert str(newest) in said[0]
        assert names(tmp_path) == [*["damaged-step-000002", "damaged-step-000002-2"][:time], "step-000001"]
    assert checkpoints.restore(Stub(), said.append) == tmp_path / "step-000001"


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again_by_itself(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, Stub(1001), {})
    (tmp_path / "step-000001" / "value").write_text("7")
    said = []
    with pytest.raises(ConfigError, match=r"no checkpoint is left to go on from: .*step-000001"):
        checkpoints.restore(Stub(), said.append)
    for _ in range(2):  # nor the next time
        with pytest.raises(ConfigError, match=r"no checkpoint is left .* remove them, and --resume trains all steps"):
            checkpoints.restore(Stub(), said.append)
    shutil.rmtree(tmp_path / "damaged-step-000001")
    assert checkpoints.restore(Stub(), said.append) is None


def test_files_that_do_not_belong_to_a_checkpoint_do_no_harm(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(1, Stub(1001), {})
    (path / "notes").write_text("mine")
    (path / "broken").symlink_to("/proc/self/mem")
    assert checkpoints.restore(Stub(), pytest.fail) == path


def test_a_folder_of_checkpoints_that_cannot_be_read_is_no_new_run(tmp_path):
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(ConfigError, match=r"checkpoints, where checkpoints are kept, cannot be read: Not a directory"):
        Checkpoints(tmp_path / "checkpoints", keep=1).latest()


def test_a_damaged_checkpoint_that_cannot_be_renamed_ends_the_run_in_words(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(1, Stub(1001), {})
    (path / "value").write_text("7")

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunStopped, match=r"step-000001: Read-only file system \(it is damaged and was to be renamed"):
        checkpoints.restore(Stub(), pytest.fail)


@pytest.fixture
def model(make_qwen3, tmp_path):
    pytest.importorskip("peft")
    make_qwen3().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def losses(folder):
    """By step; a step that was taken twice must have come out equal."""
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    found = {line["step"]: line for line in lines}
    assert all(line == found[line["step"]] for line in lines)
    return found


def assert_same_run(ours, theirs, model):
    assert len(losses(theirs)) == 5
    assert losses(ours) == losses(theirs)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (ours / "out", theirs / "out", model)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "lora": {"rank": 4}}],
    ids=["float32", "bfloat16", "lora"],
)
def test_a_run_that_stopped_goes_on_to_the_bit(model, tmp_path, settings):
    from tests.train.saving_run import run

    for name, stops in (("whole", [5]), ("stopped", [1, 3, 5])):
        (tmp_path / name).mkdir()
        for until in stops:
            run(model, tmp_path / name, settings, until)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole", model)


@pytest.mark.slow
def test_a_run_that_is_killed_while_saving_goes_on_to_the_bit(model, tmp_path):
    import torch

    from tests.train.saving_run import run

    settings = {"dtype": "float32"}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run(model, tmp_path / "whole", settings)
    killed = subprocess.run(
        [sys.executable, "-m", "tests.train.saving_run", model, tmp_path / "killed", json.dumps(settings), "3"],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # other numbers add up in other orders
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = tmp_path / "killed" / "checkpoints"
    assert names(saved) == [".unfinished-step-000003", "step-000001", "step-000002"]
    assert names(saved / ".unfinished-step-000003") == ["tensors"]
    run(model, tmp_path / "killed", settings)
    assert names(saved) == ["step-000004", "step-000005"]
    assert_same_run(tmp_path / "killed", tmp_path / "whole", model)


def test_a_checkpoint_of_another_adapter_is_refused(model, tmp_path):
    from rlm_env.train.learner.config import LoraConfig, LossConfig, ModelConfig, OptimizerConfig
    from rlm_env.train.learner.learner import Learner

    def learner(lora):
        settings = ModelConfig(device="cpu", dtype="float32", pack_tokens=60, lora=lora)
        return Learner(model, settings, OptimizerConfig(), LossConfig(), 5)

    path = Checkpoints(tmp_path / "checkpoints", keep=1).save(1, learner(LoraConfig(rank=4)), {})
    for other in (None, LoraConfig(rank=8)):
        with pytest.raises(ValueError, match=r"was saved with trainer\.lora = .*'rank': 4"):
            learner(other).load(path)
