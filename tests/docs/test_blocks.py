"""Every code block in README and docs is run by a test or says why not, and is code of what there is today.

The tables of TOML in docs/evaluating.md, docs/training.md and docs/publishing.md are read here by what they are for.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import symtable
import tomllib
from typing import Any

import pytest

import api_doc
import rlm_env
from rlm_env.asking.config import AskConfig
from rlm_env.evals.config import EvalConfig, load_eval_config
from rlm_env.hub.check import allowed_rules
from rlm_env.registry import environment_maker
from rlm_env.runs.prices import load_prices
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.train.rl.config import load_train_config
from tests.docs.pages import ROOT, Block, blocks

LANGUAGES = {"bash", "python", "toml", "json", "text"}
OWN = {"open-refunds-rlm": {"tickets"}}
"""Environments that a page writes -> their options."""
KEYS = {*RLMConfig.model_fields, *EvalConfig.model_fields, *AskConfig.model_fields}
TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def of(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


def test_every_block_names_its_language():
    assert [str(block) for block in blocks() if block.language not in LANGUAGES] == []


def test_every_block_is_run_by_a_test_or_says_why_not():
    """A comment above it: `<!-- run by FILE -->`, a test that names the page, or `<!-- not run: REASON -->`."""
    wrong = []
    for block in blocks():
        if block.kind == "run by":
            path = ROOT / block.why
            name = block.page.rpartition("/")[2]
            if not path.is_file() or name not in path.read_text("utf-8"):
                wrong.append(f"{block}: {block.why} does not name {name}")
        elif block.kind != "not run:" and block.language != "text":
            wrong.append(f"{block}: neither `run by` nor `not run:`")
    assert wrong == []


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_is_code_of_what_there_is(block):
    tree = compile(block.text, str(block), "exec", flags=ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT)
    assert undefined(block.text) == set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("rlm_env", "rlm_rewards"):
            for alias in node.names:
                api_doc.resolve(node.module, alias.name)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rlm_env":
            assert node.attr in rlm_env.__all__
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("rlm_env."):
            check_call(node)


def undefined(source: str) -> set[str]:
    """Names that a block uses at its top level and nobody defines."""
    table = symtable.symtable(source, "block", "exec") if "await " not in source else None
    if table is None:  # symtable knows no `await` outside of a function
        table = symtable.symtable(
            "async def block():\n" + "\n".join(f"    {line}" for line in source.splitlines()), "block", "exec"
        )
        table = table.get_children()[0]
    used = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and not symbol.is_assigned()}
    known = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported() or symbol.is_namespace()}
    return used - known - set(dir(builtins)) - {"__name__"}


def check_call(node: ast.Call) -> None:
    """The arguments of a call of `rlm_env.NAME` are those that it takes."""
    name = ast.unparse(node.func).removeprefix("rlm_env.").removesuffix("_sync")  # which take what those do
    given = {keyword.arg for keyword in node.keywords if keyword.arg}
    found: Any = rlm_env
    for part in name.split("."):
        found = getattr(found, part)
    parameters = inspect.signature(found.__init__ if inspect.isclass(found) else found).parameters
    unknown = given - set(parameters)
    if name == "load_environment":
        called = ast.literal_eval(node.args[0])
        options = OWN.get(called) or set(inspect.signature(environment_maker(called)).parameters) | dataset_options(
            called
        )
        unknown -= options
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        unknown -= KEYS
    assert unknown == set(), f"{name} takes no {', '.join(sorted(map(str, unknown)))}"


def dataset_options(name: str) -> set[str]:
    """The options of an environment's data sets."""
    from tests.environments.test_readmes import options_of

    return options_of(environment_maker(name).__module__.partition(".")[0])


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_is_read_by_what_it_is_for(block, tmp_path):
    """A config of an eval or a training run, a price table, or rules in the pyproject.toml of a package."""
    values = tomllib.loads(block.text)
    path = tmp_path / "block.toml"
    path.write_text(block.text)
    if "tool" in values:
        assert allowed_rules(path)
    elif block.page.endswith("training.md"):
        path.write_text(f"model = 'tiny-rlm'\n{block.text}\n[[environments]]\nname = 'oolong-rlm'\n")
        assert load_train_config(path).engine_entries()
    elif "engines" in values:
        path.write_text(f"{block.text}\n[[environments]]\nname = 'oolong-rlm'\n")
        assert load_eval_config(path, {}, "now").engines
    else:
        assert load_prices(path)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_can_be_read(block):
    assert json.loads(block.text)


def test_what_docs_import_is_public():
    """Names of the inside are in no example: what an example imports stands on the page of the API."""
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    listed = {name for name in page.split("`") if name.startswith(("rlm_env.", "rlm_rewards."))}
    wrong = []
    for block in of("python"):
        tree = compile(block.text, str(block), "exec", flags=ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("rlm_env", "rlm_rewards")):
                wrong += [
                    f"{block}: {node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" not in listed
                ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import rlm_env\nenv = rlm_env.load_environment('needle-rlm', lenghts=[1])", "takes no lenghts"),
        ("import rlm_env\nr = rlm_env.ask_sync('?', '', max_turn=3)", "takes no max_turn"),
        ("import rlm_env\nenv = rlm_env.load('needle-rlm')", "'load'"),
        ("from rlm_env.llm import OpenAI", "OpenAI"),
        ("print(rlm_env)", "rlm_env"),
    ],
)
def test_a_mistake_is_found(source, said):
    with pytest.raises((AssertionError, AttributeError, KeyError), match=said):
        test_python_is_code_of_what_there_is(Block("page.md", 1, "python", source, "", ""))
