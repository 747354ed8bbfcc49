"""`rlm-env new`: a package that works, and passes ruff, check and its own tests as it is made."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlm_env import __version__
from rlm_env.cli import main
from rlm_env.hub.check import CheckRequest, check_environment
from rlm_env.hub.new import FILES, class_name, core_bounds, make_package
from rlm_env.runs.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command as a stranger runs it, in a folder outside of this project."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "rewards")])
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder in which `rlm-env new first-env-rlm` was said."""
    folder = tmp_path_factory.mktemp("new")
    done = run("rlm_env.cli", "new", "first-env-rlm", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "made environments/first_env_rlm:" in done.stdout
    assert "rlm-env validate first-env-rlm" in done.stdout
    assert "check then names what README.md, pyproject.toml,\ntips.txt and the tests still say" in done.stdout
    return folder


def test_everything_is_there_and_nothing_is_left_to_be_filled_in(made):
    project = made / "environments" / "first_env_rlm"
    files = {path.relative_to(project).as_posix(): path.read_text() for path in project.rglob("*") if path.is_file()}
    assert len(files) == len(FILES)
    assert not [name for name, text in files.items() if "@name@" in text or "@module@" in text or "@class@" in text]
    assert files["LICENSE"] == (ROOT / "LICENSE").read_text()
    metadata = tomllib.loads(files["pyproject.toml"])["project"]
    assert metadata["dependencies"] == [f"rlm-env{core_bounds(__version__)}"]
    assert metadata["entry-points"]["rlm_env.environments"] == {"first-env-rlm": "first_env_rlm:FirstEnv"}


@pytest.mark.slow
async def test_it_passes_the_check(made, monkeypatch):
    monkeypatch.chdir(made)
    findings = await check_environment(CheckRequest("first-env-rlm", {}, tasks=8))
    assert findings.ok, findings.lines()
    assert findings.unchecked == {}


@pytest.mark.slow
def test_it_passes_its_own_tests_and_ruff_by_our_rules_and_by_others(made):
    done = run("pytest", "-q", "environments/first_env_rlm", cwd=made)
    assert done.returncode == 0, done.stdout
    for rules in (["--config", str(ROOT / "pyproject.toml")], ["--isolated", "--line-length", "120"]):
        select = ["--select", "E,F,I,UP,B,SIM,RET,RUF"] if "--isolated" in rules else []
        for command in (["check", *select], ["format", "--check"]):
            done = run("ruff", *command, *rules, "environments", cwd=made)
            assert done.returncode == 0, done.stdout


def test_names_that_cannot_be_are_refused_with_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("My Env", "'My Env' cannot be a name: .* for example my-env"),
        ("json", "Python imports something else as json; json-rlm may do"),
        ("lambda", "Python imports something else as lambda"),
        ("numpy", "Python imports something else as numpy"),
        ("-", "hyphens between them$"),
        ("needle-rlm", "Python imports something else as needle_rlm; needle-2-rlm may do"),
        ("a" * 300, "it has more than 100 characters"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_package(name, Path("environments"))
    assert not Path("environments").exists()
    Path("a-file").write_text("")
    with pytest.raises(ConfigError, match=r"a-file/some_env cannot be made: .*; name another folder with --out"):
        make_package("some-env", Path("a-file"))
    assert main(["new", "some-env", "--out", "packages"]) == 0
    assert "pip install -e packages/some_env" in capsys.readouterr().out
    assert main(["new", "some-env", "--out", "packages"]) == 2
    assert "packages/some_env is there already" in capsys.readouterr().err


def test_names_of_classes_and_bounds():
    assert [class_name(name) for name in ("needle-rlm", "word-count", "rlm", "a1-b2-rlm")] == [
        "Needle",
        "WordCount",
        "Rlm",
        "A1B2",
    ]
    assert [core_bounds(version) for version in ("0.2.0", "0.13.1rc1", "1.4.2", "2.0")] == [
        ">=0.2,<0.3",
        ">=0.13,<0.14",
        ">=1.4,<2",
        ">=2.0,<3",
    ]
