"""From `rlm-env new` to a package that is published on a real index, installed elsewhere and evaluated there.

Both the author and the user have rlm-env from that index, in virtual environments of their own.
"""

from __future__ import annotations

import json
import tomllib

import pytest

from rlm_env.hub.perfect_endpoint import PerfectEndpoint
from rlm_env.origin import HASH_FILE
from rlm_env.registry import load_environment
from tests.hub.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_dozen_commands_lead_from_nothing_to_a_published_installed_evaluated_package(index, tmp_path, monkeypatch):
    shell = Shell(tmp_path, PIP_EXTRA_INDEX_URL=f"{index}simple/")
    author = shell.venv("author")
    shell(author / "python", "-m", "pip", "install", "--quiet", "rlm-env[hub]", "pytest")
    shell(author / "rlm-env", "new", "counted-rlm")
    shell(author / "rlm-env", "check", "counted-rlm")
    shell(author / "python", "-m", "pytest", "-q", "environments/counted_rlm")
    publish = ["publish", "counted-rlm", "--to", "index", "--repository", index, "--index-url", f"{index}simple/"]
    said = shell(author / "rlm-env", *publish)
    assert "published to index" in said
    assert "ok           install: in a fresh virtual environment\n" in said  # with the index's rlm-env
    monkeypatch.chdir(tmp_path)
    env = load_environment("counted-rlm")
    answers = {task.question: env.perfect_answer(task) for task in env.tasks("eval").take(2)}
    (tmp_path / "environments").rename(tmp_path / "sources")

    user = shell.venv("user")
    shell(user / "python", "-m", "pip", "install", "--quiet", "counted-rlm==0.1.0")
    assert shell(user / "rlm-env", "envs").split() == ["counted-rlm", "counted-rlm", "0.1.0"]
    with PerfectEndpoint(answers) as endpoint:
        evaluate = ["eval", "counted-rlm", "--model", "m", "--base-url", endpoint.base_url, "-n", "2", "--out", "out"]
        shell(user / "rlm-env", *evaluate)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [1.0] * 4
    assert len(shell.commands) <= 12

    [written] = user.parent.glob(f"lib/*/site-packages/counted_rlm/{HASH_FILE}")
    sha256 = written.read_text().strip()
    assert f"sha256 {sha256}" in said
    record = tomllib.loads((tmp_path / "out" / "config.toml").read_text())["record"]
    assert record["package"] == {"name": "counted-rlm", "version": "0.1.0", "sha256": sha256}

    (tmp_path / "sources").rename(tmp_path / "environments")
    refused = shell(author / "rlm-env", *publish, code=1)
    assert "counted-rlm 0.1.0 is there already. Remedy: raise the version" in refused
    project = tmp_path / "environments" / "counted_rlm" / "pyproject.toml"
    bounds = next(line for line in project.read_text().splitlines() if line.startswith("dependencies"))
    text = project.read_text().replace('version = "0.1.0"', 'version = "0.1.1"')
    project.write_text(text.replace(bounds, 'dependencies = ["rlm-env>=7,<8"]'))
    refused = shell(author / "rlm-env", *publish, code=1)
    assert "pip finds no rlm-env>=7,<8, so nobody could install the package" in refused
