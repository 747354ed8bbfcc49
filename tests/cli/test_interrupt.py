"""Ctrl-C, SIGTERM and SIGKILL on the command itself, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.word_count import BARE_REPLS, lines

ROLLOUTS = Path("out/rollouts.jsonl")
COMMAND = """
import signal, sys
from rlm_env.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the foreground, wherever the tests themselves run
sys.exit(main(sys.argv[1:]))
"""


def start(endpoint, *arguments: str) -> subprocess.Popen:
    where = ["--model", "stub", "--base-url", endpoint.url, "--out", "out", "-n", "60", "--concurrency", "4"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "eval", "word-count", *where, *BARE_REPLS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_some(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while len(lines(ROLLOUTS)) < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_run_keeps_what_it_has_and_goes_on(workplace, endpoint, number, code, said):
    endpoint.delay = 0.1
    process = start(endpoint)
    wait_for_some(process)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert f"stopped: {said}" in err
    assert "rlm-env eval out/config.toml --resume" in err
    assert "Traceback" not in err
    before = lines(ROLLOUTS)
    assert 5 <= len(before) < 120
    assert json.loads(Path("out/summary.json").read_text())["status"] == "interrupted"
    assert not Path("out/summary.json.tmp").exists()

    endpoint.delay = 0.0
    again = start(endpoint, "--resume")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    after = lines(ROLLOUTS)
    scored = [index for index, record in enumerate(before) if record["score"]]
    assert [after[index] for index in scored] == [before[index] for index in scored]
    assert all(record["score"] for record in after)  # those whose scoring was interrupted were scored
    keys = [(record["scaffold"], record["task_id"]) for record in lines(ROLLOUTS)]
    assert len(keys) == len(set(keys)) == 120
    assert "score" in out


@pytest.mark.slow
def test_a_killed_run_goes_on(workplace, endpoint):
    endpoint.delay = 0.1
    process = start(endpoint)
    wait_for_some(process)
    process.kill()
    process.communicate(timeout=30)
    with open("out/rollouts.jsonl", "a") as file:
        file.write('{"schema": 1, "id": "half a li')
    endpoint.delay = 0.0
    again = start(endpoint, "--resume")
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert len({(record["scaffold"], record["task_id"]) for record in lines(ROLLOUTS)}) == 120
