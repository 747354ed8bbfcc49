"""The environments of this project as strangers get them: `pip install 'rlm-env[environments]'` from an index."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import rlm_env
from rlm_env.hub.build import build, wheel_findings
from rlm_env.hub.classification import UNCLASSIFIED, hub_class
from rlm_env.hub.findings import Findings
from rlm_env.hub.perfect_endpoint import PerfectEndpoint
from rlm_env.hub.project import read_project, stage_project
from rlm_env.hub.validate import left_out
from rlm_env.registry import load_environment
from tests.hub.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
PROJECTS = [read_project(path.parent) for path in sorted(ROOT.glob("environments/*/pyproject.toml"))]


@pytest.fixture(scope="module")
def elsewhere(index, tmp_path_factory):
    """A shell and the folder of the commands of a virtual environment, into which one command brought all of them."""
    shell = Shell(tmp_path_factory.mktemp("shipped"), OPENAI_API_KEY="none")
    for project in PROJECTS:
        staged, _ = stage_project(project, shell.folder / project.name)
        built = build(staged, shell.folder / f"{project.name}-dist")
        assert wheel_findings(staged, built) == left_out(project, staged) == []
        assert hub_class(built.requirements) == UNCLASSIFIED
        shell(*Shell.upload(index), built.wheel, built.archive)
    commands = shell.venv("venv")
    install = ["install", "--quiet", "--extra-index-url", f"{index}simple/", "rlm-env[environments]"]
    shell(commands / "python", "-m", "pip", *install)
    return shell, commands


def test_all_are_listed_with_their_versions(elsewhere):
    shell, commands = elsewhere
    listed = {line.split()[0]: line.split()[1:] for line in shell(commands / "rlm-env", "envs").splitlines()}
    assert listed == {name: [p.name, p.version] for p in PROJECTS for name in p.environments}
    assert len(listed) == 7


def test_what_is_installed_is_what_is_here(elsewhere):
    """Every file of the two packages, prompts, pages and the shipped policy included; and one version."""
    shell, commands = elsewhere
    [packages] = commands.parent.glob("lib/*/site-packages")
    for source in (ROOT / "rlm_env", ROOT / "rewards" / "rlm_rewards"):
        here, there = (
            {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
            for root in (source, packages / source.name)
        )
        assert {path for path in here ^ there if "__pycache__" not in path.parts} == set()
    assert shell(commands / "rlm-env", "--version").split() == ["rlm-env", rlm_env.__version__]


@pytest.mark.parametrize("name", [name for project in PROJECTS for name in project.environments])
def test_each_passes_the_check_and_is_evaluated(elsewhere, name):
    shell, commands = elsewhere
    findings = Findings.from_dict(json.loads(shell(commands / "rlm-env", "check", name, "-n", "8", "--json")))
    assert findings.ok
    assert "package-in-repl" in findings.passed
    trial = json.loads(shell(commands / "python", "-m", "rlm_env.hub.trial", name, "2").splitlines()[-1])
    assert [row["reward"] for row in trial["rows"]] == [1.0] * 4


def part(pattern: str, text: str) -> str:
    """What the group of a pattern finds in a text."""
    found = re.search(pattern, text, re.DOTALL)
    assert found, pattern
    return found[1]


def test_the_first_example_of_the_readme_runs(elsewhere, monkeypatch):
    """As it stands there, but for the address of the endpoint."""
    shell, commands = elsewhere
    example = part(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"))
    address = part(r'base_url="([^"]+)"', example)
    options = part(r'load_environment\("oolong-rlm", (lengths=\[\d[\d_]*\])', example)
    monkeypatch.chdir(ROOT)
    env = load_environment("oolong-rlm", lengths=[int(options.partition("[")[2].rstrip("]"))])
    answers = {task.question: env.perfect_answer(task) for task in env.tasks("eval").take(3)}
    with PerfectEndpoint(answers) as endpoint:
        (shell.folder / "example.py").write_text(example.replace(address, endpoint.base_url))
        said = shell(commands / "python", "example.py").splitlines()
    assert [line.split()[:2] for line in said] == [["1.0", "ready"]] * 3
