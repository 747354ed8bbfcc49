"""The workflows call what there is: scripts of this project, the Pythons that it promises, its version in one place."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import rlm_env

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def loaded(path: Path) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(path.read_text("utf-8"))


def commands(path: Path) -> list[str]:
    """What the steps of a workflow run."""
    return [step["run"] for job in loaded(path)["jobs"].values() for step in job["steps"] if "run" in step]


def test_there_are_one_for_changes_and_one_for_releases():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_is_shell_that_can_be_read_and_every_script_is_there(path):
    for command in commands(path):
        plain = re.sub(r"\$\{\{.*?\}\}", "x", command)
        assert subprocess.run(["bash", "-n"], input=plain, text=True, capture_output=True).stderr == ""
        for script in re.findall(r"\./(scripts/\S+\.sh)", command):
            assert (ROOT / script).stat().st_mode & 0o111
        for script in re.findall(r"python (scripts/\S+)", command):
            assert (ROOT / script).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_has_a_time_limit_and_an_action_a_version(path):
    for name, job in loaded(path)["jobs"].items():
        assert "timeout-minutes" in job or name == "publish"
        assert all(re.search(r"@(v\d|release/v\d)", step["uses"]) for step in job["steps"] if "uses" in step)


def test_the_pythons_of_the_classifiers_are_tested():
    promised = {c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c}
    assert set(loaded(WORKFLOWS[0])["jobs"]["fast"]["strategy"]["matrix"]["python"]) == promised


def test_the_version_stands_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "rlm_env/__init__.py"
    assert f"\n## {rlm_env.__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
