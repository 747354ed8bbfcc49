"""What pages tell a newcomer to type, as it stands there: docs/quickstart.md from its first command to its last on the
real engine; README.md, docs/asking.md, docs/evaluating.md and docs/sandbox.md with an endpoint in place of the models.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rlm_env.cli.main import main
from tests.docs.pages import ROOT, Block, Command, blocks, of_block

CODE = """```repl
answer["content"] = str(llm_batch([f"Count spam in: {str(context)[:40]}"])[0])
answer["ready"] = True
```"""
HERE = "tests/docs/test_walk.py"
OPENAI = "https://api.openai.com/v1"


def run_here(page: str, language: str) -> list[Block]:
    """The blocks of a page that name this file."""
    found = [b for b in blocks() if (b.page, b.language, b.why) == (page, language, HERE)]
    assert found, f"{page} has no such block"
    return found


def typed(page: str) -> list[Command]:
    """Their commands, in order."""
    return [command for block in run_here(page, "bash") for command in of_block(block)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: what the pages speak of, and the environments and configs of the checkout."""
    for name in ("contracts/one.txt", "my_repository/app.py", "src/retry.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("spam, and then spam")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    return tmp_path


def reply(text: str) -> web.Response:
    """What an endpoint says."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def at(url: str, words: tuple[str, ...]) -> list[str]:
    """A command with an endpoint in place of its model."""
    words = tuple(url if word == OPENAI else word for word in words[1:])
    return [*words] if url in words else [*words, "--base-url", url]


@pytest.mark.parametrize("page", ["README.md", "docs/asking.md"])
def test_questions_on_the_command_line_are_answered(page, place, endpoint, monkeypatch, capsys):
    endpoint.answer = lambda body: reply(CODE) if body["messages"][0]["role"] == "system" else None
    asked = [command for command in typed(page) if command.words[0] == "rlm-env"]
    for command in asked:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"what journalctl says: spam")))
        assert main([*at(endpoint.url, command.words), "--set", "rollout.repl.preload=[]"]) == 0
        assert capsys.readouterr().out.startswith(("7\n", '{"answer": "7"'))
    assert asked


@pytest.mark.slow
def test_python_of_asking_and_evaluating_runs(place, endpoint, capsys):
    (place / "environments").symlink_to(ROOT / "environments")
    known: dict[str, Any] = {}
    for block in run_here("docs/asking.md", "python"):
        source = block.text.replace(OPENAI, endpoint.url)
        exec(source.replace('model="tiny-rlm"', f'model="m", base_url="{endpoint.url}", progress=False'), known)
    assert len(known["frame"]) == 8
    for block in run_here("docs/evaluating.md", "python"):
        exec(block.text.replace("outputs/NAME", str(known["result"].path)), {})
    assert len(capsys.readouterr().out.splitlines()) == 1 + 1 + 1 + 8


def test_the_report_of_the_sandbox_is_printed(place):
    [command] = typed("docs/sandbox.md")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, *command.words[1:]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("level ")


@pytest.mark.parametrize("package", sorted(path.parent.name for path in ROOT.glob("environments/*/README.md")))
def test_environments_are_loaded_as_their_readmes_say(package, place):
    """Those blocks of each README.md that download nothing."""
    (place / "environments").symlink_to(ROOT / "environments")
    for block in blocks():
        if (block.page, block.why) == (f"environments/{package}/README.md", HERE):
            known: dict[str, Any] = {}
            exec(block.text, known)
            made = [value for name, value in known.items() if name not in ("__builtins__", "rlm_env")]
            assert made
            assert all(env.tasks("eval").take(1)[0].question for env in made)


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_the_quickstart_from_its_first_command_to_its_last(place, vllm_server):
    """With the session's vLLM in place of one of its own for each command."""
    engine = ["--base-url", vllm_server.base_url, "--tokens", "tiny-rlm"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = {}
    for command in typed("docs/quickstart.md"):
        words = [*command.words[1:], *(engine if "--model" in command.words else [])]
        done = subprocess.run(
            [sys.executable, "-m", "rlm_env.cli", *words], env=environment, capture_output=True, text=True, timeout=300
        )
        # tiny-rlm reads no folders: that it hands nothing in is all that may go wrong
        assert done.returncode in ((0, 1) if "ask" in words else (0,)), f"{command}\n{done.stdout}{done.stderr}"
        said[words[0]] = done.stdout
    assert list(said) == ["new", "check", "eval", "report", "show", "view", "ask", "train"]
    assert (place / "environments" / "my_env" / "my_env" / "environment.py").is_file()
    assert "my-env" in said["report"]
    assert (place / "outputs" / "first.html").stat().st_size > 100_000
