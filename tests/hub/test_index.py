"""From `rlm-env new` to a package that is published on a real index, installed elsewhere and evaluated there."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest

from rlm_env.hub.perfect_endpoint import PerfectEndpoint
from rlm_env.origin import HASH_FILE
from rlm_env.registry import load_environment
from tests.hub.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_dozen_commands_lead_from_nothing_to_a_published_installed_evaluated_package(index, tmp_path, monkeypatch):
    shell = Shell(tmp_path)
    shell.rlm_env("new", "counted-rlm")
    shell.rlm_env("check", "counted-rlm")
    shell(sys.executable, "-m", "pytest", "-q", "environments/counted_rlm")
    publish = ["publish", "counted-rlm", "--to", "index", "--repository", index, "--index-url", f"{index}simple/"]
    said = shell.rlm_env(*publish)
    assert "published to index" in said
    python = tmp_path / "elsewhere" / "bin" / "python"
    shell(Path(sys.base_prefix) / "bin" / "python3", "-m", "venv", "elsewhere")
    shell(python, "-m", "pip", "install", "--quiet", "--extra-index-url", f"{index}simple/", "counted-rlm==0.1.0")
    (tmp_path / "environments").rename(tmp_path / "sources")
    listed = shell(python.parent / "rlm-env", "envs")
    assert listed.split() == ["counted-rlm", "counted-rlm", "0.1.0"]

    (tmp_path / "sources").rename(tmp_path / "environments")
    monkeypatch.chdir(tmp_path)
    env = load_environment("counted-rlm")
    answers = {task.question: env.perfect_answer(task) for task in env.tasks("eval").take(2)}
    (tmp_path / "environments").rename(tmp_path / "sources")
    with PerfectEndpoint(answers) as endpoint:
        evaluate = ["eval", "counted-rlm", "--model", "m", "--base-url", endpoint.base_url, "-n", "2", "--out", "out"]
        shell(python.parent / "rlm-env", *evaluate)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [1.0] * 4
    assert len(shell.commands) <= 12

    [written] = (tmp_path / "elsewhere").glob(f"lib/*/site-packages/counted_rlm/{HASH_FILE}")
    sha256 = written.read_text().strip()
    assert f"sha256 {sha256}" in said
    record = tomllib.loads((tmp_path / "out" / "config.toml").read_text())["record"]
    assert record["package"] == {"name": "counted-rlm", "version": "0.1.0", "sha256": sha256}

    (tmp_path / "sources").rename(tmp_path / "environments")
    refused = shell.rlm_env(*publish, code=1)
    assert "counted-rlm 0.1.0 is there already. Remedy: raise the version" in refused
    project = tmp_path / "environments" / "counted_rlm" / "pyproject.toml"
    bounds = next(line for line in project.read_text().splitlines() if line.startswith("dependencies"))
    text = project.read_text().replace('version = "0.1.0"', 'version = "0.1.1"')
    project.write_text(text.replace(bounds, 'dependencies = ["rlm-env>=7,<8"]'))
    refused = shell.rlm_env(*publish, code=1)
    assert "pip finds no rlm-env>=7,<8, so nobody could install the package" in refused
