"""Every snippet of README.md, and one of docs/asking.md, as they stand there. The environment has tests of its own
(`test_registry.py`)."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlm_env.cli.main import make_parser
from rlm_env.evals.config import load_eval_config
from rlm_env.train.rl.config import load_train_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
ASKING = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "asking.md").read_text("utf-8"), flags=re.DOTALL)
COMMANDS = [
    line.partition("   #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
OPENAI = "https://api.openai.com/v1"


def snippet(mark: str) -> str:
    [found] = [text for text in (*SNIPPETS, *ASKING) if mark in text]
    return found


def run(source: str, url: str, folder: Path) -> tuple[str, str]:
    """Runs a snippet as a script, at an endpoint of the test; returns what it wrote to stdout and stderr."""
    assert OPENAI in source
    program = [sys.executable, "-X", "dev", "-c", source.replace(OPENAI, url)]
    environment = {"OPENAI_API_KEY": "key", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        program, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_every_python_snippet_has_a_test():
    marks = ("async def main()", "class WordCount(rlm_env.Environment)")
    assert [sum(mark in text for mark in marks) for text in SNIPPETS] == [1] * len(marks)


def test_the_first_example(endpoint, tmp_path):
    (tmp_path / "environments").symlink_to(ROOT / "environments")
    out, err = run(snippet("async def main()"), endpoint.url, tmp_path)
    lines = [line.split(" ") for line in out.splitlines()]
    assert len(lines) == 3
    for score, reason, _answer, sub_calls in lines:
        assert 0.0 <= float(score) <= 1.0
        assert (reason, float(sub_calls)) == ("ready", 1.0)
    assert "Unclosed" not in err
    assert "Traceback" not in err


def test_a_question_about_a_folder(endpoint, tmp_path):
    folder = tmp_path / "my_repository"
    for name in ("app.py", "tests/test_app.py", ".env", ".git/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("spam")
    out, err = run(snippet("solve_sync("), endpoint.url, tmp_path)
    assert out.endswith("1 files; left out: possible secrets (1), version control (1), excluded (1)\n")
    assert "Unclosed" not in err
    assert {request["max_tokens"] for request in endpoint.requests} == {8192}


@pytest.mark.parametrize("command", [text for text in COMMANDS if text.startswith("rlm-env ")])
def test_a_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = make_parser().parse_args(shlex.split(command)[1:])
    target = getattr(arguments, "target", None) or getattr(arguments, "config", None)
    if str(target).startswith("configs/"):
        load = load_train_config if "train" in command.split()[1] else load_eval_config
        load(Path(target), {}, *(["now"] if load is load_eval_config else []))


def test_every_other_command_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for command in COMMANDS:
        if command.startswith("./"):
            assert (ROOT / command.split()[0]).is_file(), command
        elif command.startswith("pip install"):
            for extra in re.findall(r"\[([a-z,-]+)\]", command):
                assert {*extra.split(",")} <= extras.keys()
        else:
            assert command.startswith("rlm-env "), command


@pytest.fixture
def word_count(tmp_path, monkeypatch) -> Path:
    """A project with the README's environment, in the current folder."""
    project = tmp_path / "environments" / "readme_count"
    project.mkdir(parents=True)
    (project / "readme_count.py").write_text(f"import rlm_env\n\n{snippet('class WordCount')}")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "readme-count"\nversion = "1"\n'
        '[project.entry-points."rlm_env.environments"]\nreadme-count = "readme_count:WordCount"\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rlm_env(*arguments: str) -> str:
    """Runs a command to its end; returns what it printed."""
    program = [sys.executable, "-m", "rlm_env.cli", *arguments]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def evaluate_and_train(base_url: str) -> tuple[str, str]:
    """What both commands say, on an engine that runs already."""
    asked = "eval readme-count --model tiny-rlm -n 3 --scaffolds rlm --out evaluated --set rollout.max_turns=2"
    evaluated = rlm_env(*asked.split(), "--base-url", base_url, "--tokens", "tiny-rlm")
    Path("train.toml").write_text(
        'model = "tiny-rlm"\nsteps = 1\nout = "trained"\n[[environments]]\nname = "readme-count"\n'
        "[rollout]\nmax_turns = 2\n[rollout.sub]\ntemperature = 1.0\n[groups]\nsize = 2\nper_step = 2\n"
        'replace_zero_advantage = false\n[trainer]\ndevice = "cpu"\ndtype = "float32"\npack_tokens = 2048\n'
        f'[[engines]]\nname = "session"\nbase_url = "{base_url}"\n'
    )
    return evaluated, rlm_env("train", "train.toml")


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.asyncio(loop_scope="session")
async def test_the_environment_is_evaluated_and_trained_on_the_real_engine(word_count, vllm_server, tiny_model_path):
    """On the session's engine: that the commands start one is shown in tests/evals/test_vllm.py and
    tests/train/rl/test_live.py."""
    try:
        evaluated, trained = await asyncio.to_thread(evaluate_and_train, vllm_server.base_url)
    finally:
        await vllm_server.reload_weights(tiny_model_path)
    assert "rollouts: error │ 0" in " ".join(evaluated.split())
    for stage in ("loading tiny-rlm ...", "comparing it with the trainer ..."):
        assert stage in " ".join(trained.split())
    assert (word_count / "trained" / "model" / "config.json").is_file()
