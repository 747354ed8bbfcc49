"""The output folder: whole lines only, whatever interrupts a write."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.rollout import Rollout, Score, read_rollouts
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.folder import ROLLOUTS, RunFolder, read_run_config, run_status, write_summary


def rollout(number: int, answer: str = "x") -> Rollout:
    return Rollout(id=f"rlm/t{number}/0", task_id=f"t{number}", answer=answer, score=Score(1.0))


def ids(folder) -> list[str]:
    return [record.task_id for record in read_rollouts(folder / ROLLOUTS)]


def test_a_rollout_is_on_disk_when_append_returns(tmp_path):
    with RunFolder(tmp_path / "run", resume=False) as folder:
        folder.append(rollout(0))
        folder.append(rollout(1))
        assert ids(tmp_path / "run") == ["t0", "t1"]


@given(keep=st.integers(0, 400))
def test_a_cut_line_is_removed_before_the_next_one(tmp_path_factory, keep):
    path = tmp_path_factory.mktemp("run")
    with RunFolder(path, resume=False) as folder:
        folder.write_config({"n": 1})
        folder.append(rollout(0))
        folder.append(rollout(1, "y" * 300))
    data = (path / ROLLOUTS).read_bytes()
    first = data.index(b"\n") + 1
    (path / ROLLOUTS).write_bytes(data[: first + min(keep, len(data) - first - 1)])
    assert ids(path) == ["t0"]
    with RunFolder(path, resume=True) as folder:
        folder.append(rollout(2))
    assert ids(path) == ["t0", "t2"]


def test_a_file_of_one_cut_line_becomes_empty(tmp_path):
    with RunFolder(tmp_path, resume=False) as folder:
        folder.write_config({"n": 1})
    (tmp_path / ROLLOUTS).write_bytes(b'{"half": ' + b"x" * 200_000)
    with RunFolder(tmp_path, resume=True) as folder:
        folder.append(rollout(0))
    assert ids(tmp_path) == ["t0"]


def test_a_full_disk_loses_nothing_and_leaves_no_half_line(tmp_path, monkeypatch):
    real = os.pwrite

    def half(file, data, offset):
        if len(data) > 40:
            return real(file, bytes(data[:40]), offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder(tmp_path, resume=False) as folder:
        folder.append(rollout(0))
        whole = (tmp_path / ROLLOUTS).read_bytes()
        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(RunStopped, match="the disk is full") as stop:
            folder.append(rollout(1))
        assert stop.value.exit_code != 0
        assert (tmp_path / ROLLOUTS).read_bytes() == whole
        monkeypatch.setattr(os, "pwrite", real)
        folder.append(rollout(2))
    assert ids(tmp_path) == ["t0", "t2"]


def test_a_folder_that_holds_rollouts_is_not_written_over(tmp_path):
    with RunFolder(tmp_path, resume=False) as folder:
        folder.append(rollout(0))
    with pytest.raises(ConfigError, match=r"--resume.*--out"):
        RunFolder(tmp_path, resume=False)


def test_a_run_that_stored_nothing_can_be_begun_anew(tmp_path):
    with RunFolder(tmp_path, resume=False) as folder:
        folder.write_config({"n": 1})
    with RunFolder(tmp_path, resume=False):
        pass


def test_nothing_to_resume_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="nothing to resume"):
        RunFolder(tmp_path / "typo", resume=True)


def test_two_writers_are_refused_and_the_message_does_not_guess_what_the_other_is(tmp_path):
    with (
        RunFolder(tmp_path, resume=False),
        pytest.raises(ConfigError, match=rf"^process {os.getpid()} \(.+\) is writing to {tmp_path}"),
    ):
        RunFolder(tmp_path, resume=False)


def test_an_output_path_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used as an output folder"):
        RunFolder(tmp_path / "file", resume=False)


def test_config_survives_values_that_toml_does_not_have(tmp_path):
    with RunFolder(tmp_path, resume=False) as folder:
        folder.write_config({"a": None, "b": (1, None), "c": {"d": None, 3: tmp_path}})
    assert read_run_config(tmp_path) == {"b": [1], "c": {"3": str(tmp_path)}}


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        read_run_config(tmp_path)


def test_a_run_is_running_while_a_process_adds_to_it_and_stopped_after_a_kill(tmp_path):
    assert run_status(tmp_path) == "stopped"
    with RunFolder(tmp_path / "one", resume=False) as folder:
        folder.write_summary({"status": "running"})
        assert run_status(tmp_path / "one") == run_status(tmp_path) == "running"
    assert run_status(tmp_path / "one") == run_status(tmp_path) == "stopped"
    write_summary(tmp_path / "one", {"status": "complete"})
    assert run_status(tmp_path / "one") == "complete"
