"""What `import rlm_env` gives, that editors see it too, and that it costs little."""

import ast
import importlib
import subprocess
import sys

import pytest

import rlm_env
from rlm_env.plugins import PLUGINS

LAZY = ("rlm_env", "rlm_env.llm", "rlm_env.repl")
"""The packages whose public names are imported on first use."""
HEAVY = ("torch", "vllm", "transformers", "datasets", "numpy", "aiohttp", "rich")
OTHER_ROOMS = ("rlm_env.runs", "rlm_env.evals", "rlm_env.train", "rlm_env.cli")


@pytest.mark.parametrize("name", LAZY)
def test_all_public_names_exist_and_are_listed(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert len(set(package.__all__)) == len(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", LAZY)
def test_type_checkers_see_what_python_gives(name):
    """What stands under TYPE_CHECKING is what is imported on first use, name by name."""
    package = importlib.import_module(name)
    with open(str(package.__file__), encoding="utf-8") as file:
        body = ast.parse(file.read()).body
    guarded = next(node.body for node in body if isinstance(node, ast.If))
    seen = {
        alias.name: getattr(importlib.import_module(str(node.module)), alias.name)
        for node in guarded
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {public: getattr(package, public) for public in package.__all__ if public not in PLUGINS}


def test_solve_is_the_function_whatever_was_imported_before():
    own = [name for name in rlm_env.__all__ if name not in PLUGINS]
    assert own == sorted(own, key=lambda name: (name.islower(), name))
    assert callable(rlm_env.solve)
    importlib.import_module("rlm_env.solving")
    assert rlm_env.solve.__module__ == "rlm_env.solving"


def loaded_by(imported: str) -> set[str]:
    """The modules that a fresh interpreter has after an import."""
    program = f"import sys, {imported}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_the_package_or_its_words_loads_nothing_else_of_it():
    loaded = loaded_by("rlm_env, rlm_env.messages, rlm_env.lines, rlm_env.repl.bounds")
    expected = {"rlm_env", "rlm_env.lazy_names", "rlm_env.lines", "rlm_env.messages", "rlm_env.plugins", "rlm_env.repl"}
    assert {name for name in loaded if name.startswith("rlm_env")} == {*expected, "rlm_env.repl.bounds"}
    assert not loaded & {"pydantic", "asyncio", *HEAVY}


def test_using_the_package_loads_no_heavy_library_and_no_room_above():
    used = "rlm_env.registry, rlm_env.repl.host.pool, rlm_env.scaffolds, rlm_env.solving, rlm_env.tools"
    assert not loaded_by(used) & {*HEAVY, *OTHER_ROOMS}
