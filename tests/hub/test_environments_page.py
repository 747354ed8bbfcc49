"""The environment of docs/environments.md, as it stands there: checked, rolled out with its tool, judged."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
from pathlib import Path

import pytest

import rlm_env
from rlm_env.environment import Environment
from rlm_env.hub.check import CheckRequest, check_environment
from rlm_env.registry import find_environment
from rlm_env.scoring import score_rollout
from tests.stubs import StubLLM, fenced, script

PAGE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text("utf-8")
SOURCE, FIRST_LOOK = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAME, MODULE = "open-refunds-rlm", "rlm_env_test_open_refunds"
ASK_ALL = fenced(
    "asking = sorted({t['customer'] for t in context if 'Just curious' not in t['text'] and ("
    "'refund' in t['text'] or 'back' in t['text'])})\n"
    "paid = llm_batch(asking)\n"
    "answer['content'] = ', '.join(name for name, reply in zip(asking, paid) if 'true' not in str(reply))\n"
    "answer['ready'] = True"
)


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """The page's environment, in `environments/` of the current folder."""
    folder = tmp_path / "environments" / MODULE
    folder.mkdir(parents=True)
    (folder / f"{MODULE}.py").write_text(SOURCE)
    entry = f'[project.entry-points."rlm_env.environments"]\n{NAME} = "{MODULE}:OpenRefunds"\n'
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{NAME}"\nversion = "0.1.0"\n{entry}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(folder))


async def test_it_passes_the_check():
    findings = await check_environment(CheckRequest(NAME, {}, tasks=10))
    assert findings.ok, findings.lines()
    assert findings.passed["tools"] == "is_paid"
    assert set(findings.unchecked) == {"judge"}


def sub_llm(messages):
    """Asks the tool about the customer that it is given, then says what the tool said."""
    if messages[-1]["role"] == "user" and "Result" not in messages[-1]["content"] and len(messages) < 4:
        call = {"name": "is_paid", "arguments": {"customer": messages[-1]["content"].split()[-1]}}
        return f"```tool\n{json.dumps(call)}\n```"
    return messages[-1]["content"]


async def test_sub_llms_call_the_tool_and_the_answer_is_right():
    async with rlm_env.load_environment(NAME, tickets=30) as env:
        for task in env.tasks("eval").take(4):
            rollout = await env.rollout(task, script(ASK_ALL), StubLLM(sub_llm))
            assert rollout.metrics["tool_calls_is_paid"] >= 2
            assert (rollout.answer, env.score(task, rollout).value) == (", ".join(task.gold), 1.0)


@pytest.mark.parametrize(("reply", "value"), [("Yes.", 1.0), ("no", 0.0)])
async def test_the_judge_is_asked_about_answers_that_are_not_the_same_to_the_letter(reply, value):
    judge = script(reply)
    environment = find_environment(NAME, judge=judge)
    task = environment.task("eval", 0)
    written = rlm_env.Rollout.from_answer(task, f"They are {' and '.join(task.gold)}")
    assert (await score_rollout(environment, task, written)).value == value
    for answer in (environment.perfect_answer(task), ""):
        await score_rollout(environment, task, rlm_env.Rollout.from_answer(task, answer))
    assert len(judge.seen) == 1


def test_the_first_look_runs():
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(FIRST_LOOK, {})
    assert [word in said.getvalue() for word in ("Whose refund is open?", "value=1.0", "value=0.0")] == [True] * 3


def test_every_part_of_the_interface_is_in_the_table():
    methods = {name for name, value in vars(Environment).items() if inspect.isfunction(value) and name[0] != "_"}
    table = PAGE.partition("## What each part is for")[2].partition("\n## ")[0]
    assert methods | {"tips"} == set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))
    assert set(re.findall(r"    (?:async )?def ([a-z]\w*)\(self", SOURCE)) >= methods - {"aclose", "standard_prompt"}
