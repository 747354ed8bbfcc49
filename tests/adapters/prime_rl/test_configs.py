"""The runs for prime-rl: every key is one that it knows, and its environments are ours.

Checked against the structure of its `RLConfig` at a pinned commit (`rl_config.schema.json`), the environments against
the classes of verifiers that it narrows them to; and by `RLConfig` itself where PRIME_RL_SRC names a checkout.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_env.registry import find_environment
from rlm_env.runs.config import merge

jsonschema = pytest.importorskip("jsonschema", reason="needs the extra dev")

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "prime_rl"
SCHEMA = json.loads(Path(__file__).with_name("rl_config.schema.json").read_text("utf-8"))
LAYOUTS = ("single_node.toml", "multi_node.toml")
ENVIRONMENTS = sorted(path.name for path in CONFIGS.glob("*.toml") if path.name not in ("base.toml", *LAYOUTS))


def composed(*names: str) -> dict[str, Any]:
    """Files over one another, as `uv run rl @ A @ B` reads them."""
    values: dict[str, Any] = {"trainer": {}, "orchestrator": {}}
    for name in names:
        values = merge(values, tomllib.loads((CONFIGS / name).read_text("utf-8")))
    return values


def sources(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("train", "eval"):
        yield from values["orchestrator"].get(kind, {}).get("source", ())


def mistakes(values: dict[str, Any]) -> list[str]:
    """What the schema refuses. The environments are another test's."""
    values = copy.deepcopy(values)
    for source in sources(values):
        source.pop("env")
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA["schema"]).iter_errors(values)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_prime_rl_knows_every_key(name, layout):
    values = composed("base.toml", layout, name)
    assert mistakes(values) == []
    assert [len(values["orchestrator"][kind]["source"]) for kind in ("train", "eval")] == [1, 1]


@pytest.mark.parametrize(
    ("table", "key", "said"),
    [
        ((), "max_stepz", "max_stepz"),
        (("orchestrator",), "groupsize", "groupsize"),
        (("orchestrator", "renderer"), "thinking", "valid under any|thinking"),
        (("orchestrator", "train", "sampling"), "max_token", "max_token"),
        (("trainer", "optim"), "learning_rate", "valid under any|learning_rate"),
        (("deployment",), "gpus", "valid under any|gpus"),
    ],
)
def test_a_misspelt_key_is_refused(table, key, said):
    values = composed("base.toml", "single_node.toml", "needle.toml")
    at = values
    for name in table:
        at = at[name]
    at[key] = 3
    (message,) = mistakes(values)
    assert any(part in message for part in said.split("|")), message


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments_are_ours_with_options_that_they_take(name):
    for source in sources(composed("base.toml", name)):
        taskset = source["env"]["taskset"]
        environment = find_environment(taskset.get("environment", taskset["id"]), **taskset["options"])
        assert environment.task(taskset["split"], 0).question
        assert source["env"]["agent"]["harness"]["id"] == taskset["id"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_verifiers_narrows_the_environments_to_our_classes(name):
    pytest.importorskip("verifiers", reason="needs the extra verifiers")
    from verifiers.v1.utils.loaders import resolve_env_config

    from rlm_env.adapters.verifiers.harness import RLMHarnessConfig
    from rlm_env.adapters.verifiers.taskset import RLMTasksetConfig

    for source in sources(composed("base.toml", name)):
        config = resolve_env_config(source["env"])
        assert isinstance(config.taskset, RLMTasksetConfig)
        assert isinstance(config.agent.harness, RLMHarnessConfig)
        wrong = copy.deepcopy(source["env"])
        wrong["agent"]["harness"]["rollout"]["max_turnz"] = 3
        with pytest.raises(ValueError, match="max_turnz"):
            resolve_env_config(wrong)
        wrong = copy.deepcopy(source["env"])
        wrong["taskset"]["options"]["lenghts"] = 3
        with pytest.raises(ValueError, match="has no option 'lenghts'"):
            resolve_env_config(wrong)


def test_every_environment_has_a_run():
    named = {
        source["env"]["taskset"].get("environment", source["env"]["taskset"]["id"])
        for name in ENVIRONMENTS
        for source in sources(composed(name))
    }
    projects = [tomllib.loads(path.read_text("utf-8")) for path in (ROOT / "environments").glob("*/pyproject.toml")]
    assert named == {entry for one in projects for entry in one["project"]["entry-points"]["rlm_env.environments"]}


@pytest.mark.slow
@pytest.mark.skipif("PRIME_RL_SRC" not in os.environ, reason="PRIME_RL_SRC names no checkout of prime-rl")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_prime_rl_s_own_config_takes_them(layout):
    program = Path(__file__).with_name("own_config.py")
    runs = [[str(CONFIGS / part) for part in ("base.toml", layout, name)] for name in ENVIRONMENTS]
    path = os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(program), json.dumps(runs)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["RLMSeatsEnvConfig"] * 2 * len(ENVIRONMENTS)


@pytest.mark.slow
def test_the_proof_says_what_is_missing_before_it_starts_anything(tmp_path):
    script = ROOT / "scripts" / "prime_rl_cpu.py"

    def said(**variables: str) -> str:
        clean = {name: value for name, value in os.environ.items() if name != "PRIME_RL_SRC"}
        done = subprocess.run([sys.executable, script], env={**clean, **variables}, capture_output=True, text=True)
        assert done.returncode == 1
        return done.stderr

    assert "git clone" in said()
    assert "is no checkout of prime-rl" in said(PRIME_RL_SRC=str(tmp_path))
    (tmp_path / "src" / "prime_rl").mkdir(parents=True)
    if importlib.util.find_spec("beartype") is None:
        assert "beartype" in said(PRIME_RL_SRC=str(tmp_path)).split("pip install")[1]
