"""docs/api.md lists every public name, and says what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import api_doc
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
NAMES = re.findall(r"^### `([\w.]+)`$", PAGE, re.MULTILINE)
AGAIN = {
    f"{module}.{name}"
    for module, names in re.findall(r"^`([\w.]+)` has (.*) too\.$", PAGE, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
}
NOT_FOR_OTHERS = {"rlm_env.cli"}
"""Packages whose `__all__` is for this project alone."""


def modules() -> list[str]:
    """Every package that lists its names."""
    paths = [path for path in (ROOT / "rlm_env").rglob("*.py") if "__all__ = [" in path.read_text("utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def test_the_page_is_up_to_date():
    assert api_doc.page() == PAGE, "run python scripts/api_doc.py"


def test_every_public_name_is_there():
    found = set(modules()) - NOT_FOR_OTHERS
    assert {"rlm_env", "rlm_env.llm", "rlm_env.repl", "rlm_env.scoring"} <= found
    wanted = {f"{module}.{name}" for module in found for name in api_doc.listed(module)}
    assert wanted - set(NAMES) - AGAIN == set()


def test_every_reward_module_with_a_score_is_there():
    wanted = {
        f"rlm_rewards.{path.stem}.{node.name}"
        for path in (ROOT / "rewards" / "rlm_rewards").glob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name in ("score", "pairs_f1", "metrics", "judge_verdict")
    }
    assert len(wanted) >= 6
    assert wanted <= set(NAMES)


def test_every_name_has_a_description():
    for text in PAGE.split("\n### `")[1:]:
        name, _, about = text.partition("`\n")
        prose = re.sub(r"```.*?```", "", about, flags=re.DOTALL).partition("\n## ")[0]
        assert len(prose.split()) >= 3, name


def test_examples_use_public_names_alone():
    for path in sorted(Path(ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("rlm_env", "rlm_rewards")):
                for alias in node.names:
                    assert f"{node.module}.{alias.name}" in {*NAMES, *AGAIN}, path.name
