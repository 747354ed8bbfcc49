"""The append-only log: whole lines only, whatever interrupts a write, and one writer at a time."""

import errno
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.evals.outline import outline
from rlm_env.lines import parse_record, read_lines
from rlm_env.rollout import RecordError, Rollout, read_rollouts
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.folder import latest_rollouts
from rlm_env.runs.jsonl import NEVER, JsonLog, read_jsonl, write_jsonl

RECORDS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=6)


def test_a_line_is_in_the_file_when_append_returns(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonLog(path) as log:
        for number in range(3):
            log.append({"number": number})
            assert [record["number"] for record in read_jsonl(path)] == list(range(number + 1))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_no_json(constant):
    with pytest.raises(ValueError, match=f"it holds {constant}, which is no JSON"):
        parse_record(f'{{"reward/mean": {constant}}}')


def test_text_of_any_kind_comes_back(tmp_path):
    path = tmp_path / "log.jsonl"
    record = {"text": "line\nbreak, \u2028, \ud800 alone, \U0001f600"}
    with JsonLog(path) as log:
        log.append(record)
    assert list(read_jsonl(path)) == [record]


@given(records=RECORDS, cut=st.integers(0, 10_000))
def test_any_prefix_that_a_crash_leaves_is_read_back_as_whole_lines(tmp_path_factory, records, cut):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    with JsonLog(path, fsync_seconds=NEVER) as log:
        for record in records:
            log.append(record)
    left = path.read_bytes()[:cut]
    path.write_bytes(left)
    whole = records[: left.count(b"\n")]
    assert list(read_jsonl(path)) == whole
    with JsonLog(path, fsync_seconds=NEVER) as log:
        log.append({"after": "the crash"})
    assert list(read_jsonl(path)) == [*whole, {"after": "the crash"}]


def test_a_torn_line_longer_than_a_block_is_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"half": ' + b"x" * 200_000)
    with JsonLog(path):
        assert path.read_bytes() == b'{"a": 1}\n'
    path.write_bytes(b"x" * 200_000)
    with JsonLog(path):
        assert path.read_bytes() == b""


def test_a_damaged_line_is_named_with_its_file_and_number(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n{"a": 3}\n')
    lines = read_jsonl(path)
    assert next(lines) == {"a": 1}
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}, line 3 is damaged: "):
        next(lines)


@pytest.mark.parametrize("error", [ValueError("old"), KeyError("key"), TypeError("not a dict")])
def test_a_record_that_cannot_be_made_of_a_line_is_a_damaged_line(tmp_path, error):
    (tmp_path / "log.jsonl").write_text("1\n")

    def parse(line: str) -> None:
        raise error

    with pytest.raises(ConfigError, match="line 1 is damaged"):
        next(read_jsonl(tmp_path / "log.jsonl", parse))


def test_no_file_is_no_lines(tmp_path):
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_a_number_that_json_does_not_have_is_refused_before_it_is_written(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonLog(path) as log:
        with pytest.raises(ValueError, match="not JSON compliant"):
            log.append({"loss": float("nan")})
        log.append({"loss": 1.0})
    assert path.read_bytes() == b'{"loss":1.0}\n'


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    real = os.pwrite

    def half(file, data, offset):
        if len(data) > 40:
            return real(file, bytes(data[:40]), offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with JsonLog(path) as log:
        log.append({"a": 1})
        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(RunStopped, match="the disk is full"):
            log.append({"text": "x" * 100})
        assert path.read_bytes() == b'{"a":1}\n'
        monkeypatch.setattr(os, "pwrite", real)
        log.append({"a": 2})
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'


def test_a_second_writer_is_told_which_process_writes(tmp_path):
    path = tmp_path / "log.jsonl"
    code = (
        "import pathlib, sys; from rlm_env.runs.jsonl import JsonLog\n"
        "with JsonLog(pathlib.Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match=rf"process {writer.pid} \(.*python.*\) is writing to {path}; wait"):
            JsonLog(path)
        writer.stdin.close()
        assert writer.wait(30) == 0
    JsonLog(path).close()


def test_a_shared_file_takes_lines_of_two_writers_and_mends_what_one_left(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonLog(path, shared=True) as one, JsonLog(path, shared=True) as two:
        one.append({"from": 1})
        two.append({"from": 2})
        with open(path, "ab") as dies:
            dies.write(b'{"from": ')
        one.append({"from": 1})
    assert [record["from"] for record in read_jsonl(path)] == [1, 2, 1]


@pytest.mark.parametrize(("seconds", "syncs"), [(0.0, 3), (3600.0, 0), (NEVER, 0)])
def test_the_policy_says_how_often_lines_are_synced(tmp_path, monkeypatch, seconds, syncs):
    calls = []
    with JsonLog(tmp_path / "log.jsonl", fsync_seconds=seconds) as log:
        monkeypatch.setattr(os, "fsync", calls.append)
        for number in range(3):
            log.append({"number": number})
        assert len(calls) == syncs
        log.sync()
        assert len(calls) == syncs + 1


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    write_jsonl(path, [{"a": 1}, {"a": 2}])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(RunStopped, match="broken"):
        write_jsonl(path, [])
    assert [record["a"] for record in read_jsonl(path)] == [1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("line", [100_000 * "[", '{"a":' * 100_000], ids=["lists", "objects"])
@pytest.mark.parametrize(
    "read",
    [read_jsonl, read_rollouts, latest_rollouts, lambda path: read_lines(path, outline, RecordError)],
    ids=["records", "rollouts", "latest", "outlines"],
)
def test_a_line_that_is_nested_too_deeply_is_a_damaged_line(tmp_path, line, read):
    path = tmp_path / "lines.jsonl"
    path.write_text(Rollout(id="a").to_json() + "\n" + line + "\n")
    with pytest.raises((ConfigError, RecordError), match=f"{re.escape(str(path))}, line 2"):
        list(read(path))
