"""Every environment is valid in the eyes of verifiers: the right answer scores 1, and none scores less."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

import verifiers.v1 as vf
from verifiers.v1.state import state_cls

from tests.adapters.verifiers.play import env_config

pytestmark = pytest.mark.slow

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "codeqa-rlm": {},
    "deepdive-rlm": {},
    "math-python-rlm": {"options": {"profile": "tiny"}},
    "needle-rlm": {"options": {"profile": "tiny"}},
    "oolong-rlm": {"options": {"lengths": [2048]}},
    "oolong-pairs-rlm": {"options": {"lengths": [2048]}},
    "verbatim-copy-rlm": {"options": {"profile": "tiny"}},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
async def test_right_answers_score_1_and_none_scores_less(name):
    package = "oolong-rlm" if name == "oolong-pairs-rlm" else name
    taskset = vf.load_taskset(env_config(package, environment=name, num_tasks=2, **ENVIRONMENTS[name]).taskset)
    tasks = list(taskset)
    assert len(tasks) == 2
    assert len({task.key for task in tasks}) == 2
    for task in tasks:
        assert await task.validate(None) is True
        agent = vf.AgentInfo(config=vf.AgentConfig(runtime=vf.SubprocessConfig()))
        record = vf.TraceTask(type="RLMTask", data=task.data)
        trace = vf.Trace(task=record, agent=agent, state=state_cls(type(task))())
        await task.finalize(trace, None)
        await task.score(trace)
        assert trace.reward < 1.0


def test_the_command_validates_right_answers(tmp_path):
    command = [Path(sys.executable).with_name("vf-validate"), "needle-rlm", "-n", "4", "--runtime.type", "subprocess"]
    command += ["--taskset.options", json.dumps({"profile": "tiny"})]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads(done.stdout[done.stdout.index("{") :])["valid_rate"] == 1.0
