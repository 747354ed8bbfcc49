"""One name, one thing: no public class or function is defined in two modules."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARALLEL = {
    "extract_answer": "each benchmark has its own form of an answer; called with the module's name",
    "main": "the entry point of a process",
    "score": "each benchmark's scorer, called with the module's name; rlm_env.scoring.score is that of a rollout",
}
"""Names that several modules may define -> why."""


def definitions() -> dict[str, list[str]]:
    """Name of each public class and function -> the modules that define it at their top level."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in (ROOT / "rlm_env", ROOT / "rewards" / "rlm_rewards"):
        for path in sorted(package.rglob("*.py")):
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            body = ast.parse(path.read_text("utf-8")).body
            kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            for name in {node.name for node in body if isinstance(node, kinds)}:
                if not name.startswith("_"):
                    found[name].append(module)
    return found


def test_no_public_name_is_defined_twice():
    twice = {name: modules for name, modules in definitions().items() if len(modules) > 1}
    assert {name: modules for name, modules in twice.items() if name not in PARALLEL} == {}
    assert set(PARALLEL) - set(twice) == set()  # an entry that is no longer needed goes
