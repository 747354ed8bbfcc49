"""What the package promises before anything optional is installed, and that its rooms import downwards only."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "vllm", "verifiers", "trl", "transformers", "datasets", "scipy", "sympy", "wandb"}


def test_importing_the_core_imports_nothing_heavy():
    code = (
        "import sys, rlm_rewards.oolong, rlm_env.llm.base, rlm_env.scaffolds, rlm_env.cli\n"
        f"print(*({HEAVY!r} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_wheel_ships_two_packages_of_unmistakable_names_and_their_types():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert hatch["wheel"]["packages"] == ["rlm_env", "rewards/rlm_rewards"]
    for package in hatch["wheel"]["packages"]:
        assert (ROOT / package / "__init__.py").is_file()
        assert (ROOT / package / "py.typed").is_file()
        assert f"/{package.partition('/')[0]}" in hatch["sdist"]["include"]


def test_a_module_of_the_user_named_rewards_is_in_nobodys_way(tmp_path):
    """A script beside the user's own `rewards.py`, `needle.py`, ...: none of them is imported in place of ours."""
    for name in ["rewards", *(path.stem for path in files("rewards/rlm_rewards/[a-z]*.py"))]:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('the own {name}.py of the user was imported')\n")
    (tmp_path / "main.py").write_text(
        "import rlm_env, rlm_rewards\n"
        "env = rlm_env.load_environment('oolong-rlm', vocabulary='easy', lines=8)\n"
        "task = env.tasks('eval').take(1)[0]\n"
        "rollout = rlm_env.Rollout.from_answer(task, env.perfect_answer(task))\n"
        "print(env.score(task, rollout).value)\n"
    )
    (tmp_path / "environments").symlink_to(ROOT / "environments")
    path = os.pathsep.join([str(ROOT), str(ROOT / "rewards"), str(ROOT / "environments" / "oolong_rlm")])
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1.0\n", done.stderr


@cache
def imported_by(path: Path) -> set[str]:
    """Absolute names that a file imports at run time, at any depth; imports for type checkers only are left out."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


@pytest.mark.parametrize(
    ("patterns", "forbidden"),
    [
        (["rewards/rlm_rewards/*.py"], "rlm_env"),
        (["rlm_env/repl/**/*.py"], r"rlm_env\.(?!(repl|context|lazy_names)\b)"),
        (["rlm_env/llm/**/*.py"], r"rlm_env\.(scaffolds|evals|train|cli|repl|environment|registry)\b"),
        (["rlm_env/*.py", "rlm_env/scaffolds/*.py"], r"rlm_env\.(evals|train)\b"),
        (
            ["rlm_env/*.py", "rlm_env/[!at]*/**/*.py", "rlm_env/authoring/*.py", "rlm_env/tools/*.py"],
            r"(torch|verifiers|trl)\b",
        ),
        (["rlm_env/train/**/*.py"], r"verifiers\b"),
        (["rewards/rlm_rewards/*.py"], r"(torch|verifiers|trl)\b"),
    ],
)
def test_rooms_import_downwards_only(patterns, forbidden):
    found = files(*patterns)
    assert found
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in found
        for name in imported_by(path)
        if re.match(forbidden, name)
    ]
    assert wrong == []


def test_every_environment_package_declares_what_finds_it():
    for project in files("environments/*/pyproject.toml"):
        meta = tomllib.loads(project.read_text("utf-8"))["project"]
        entry = meta["entry-points"]["rlm_env.environments"]
        assert meta["name"] in entry
        assert any(need.startswith("rlm-env") for need in meta["dependencies"])
        assert (project.parent / "README.md").is_file()


@pytest.mark.parametrize("script", ["setup.sh", "test.sh", "quickstart.sh"])
def test_scripts_can_be_run(script):
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)


def test_no_file_names_a_place_or_a_registry():
    """The project speaks of itself alone: it runs anywhere. One host may be named: PyTorch's CPU wheel index."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    words = ["/".join(["", "work", "main"]), "/".join(["", "tmp", "venv"]), "pypi" + ".org", "files.python" + "hosted"]
    wrong = [
        f"{name}: {word}"
        for name in listed.stdout.split("\0")
        if name and (ROOT / name).is_file()
        for word in words
        if word.encode() in (ROOT / name).read_bytes()
    ]
    assert wrong == []
