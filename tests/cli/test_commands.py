"""What all commands have in common: help, versions, listings, messages."""

import re

import pytest

from rlm_env.cli import main
from rlm_env.cli.main import make_parser
from rlm_env.cli.training import training_packages
from rlm_env.runs.errors import ConfigError
from rlm_env.scaffolds import SCAFFOLDS

PARSERS = next(action.choices for action in make_parser()._actions if action.choices)
COMMANDS = tuple(PARSERS)


def help_of(capfd, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_code:
        main([*arguments, "--help"])
    assert exit_code.value.code == 0
    return capfd.readouterr().out


def test_version(capfd):
    with pytest.raises(SystemExit) as exit_code:
        main(["--version"])
    assert exit_code.value.code == 0
    assert capfd.readouterr().out.startswith("rlm-env ")


def test_the_help_lists_the_commands_and_the_exit_codes(capfd):
    text = help_of(capfd)
    assert all(f"\n    {name} " in text for name in COMMANDS)
    assert "4    stopped by --max-cost" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_explains_every_flag(capfd, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(capfd, name)
    assert f"\n  rlm-env {name}" in text
    description = text.split("\n\n")[1]
    assert all(len(line) <= 100 for line in description.splitlines())
    for action in PARSERS[name]._actions:
        assert action.help, action
        flags = action.option_strings
        assert not flags or any(flag.startswith("--") for flag in flags), f"{flags} has no long form"
        if action.nargs != 0 and not action.required:
            assert re.search(r"\(default: [^)]+\)|repeatable", action.help), f"{flags or action.dest}: without it?"


@pytest.mark.parametrize("name", ["ask", "serve"])
def test_the_help_of_a_question_lists_no_key_that_a_question_refuses(capfd, name):
    assert "judge" not in help_of(capfd, name)


def test_the_help_of_eval_lists_choices_and_defaults(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(help_of(capfd, "eval").split())
    assert f"Choices: {', '.join(SCAFFOLDS)} (default: standard,rlm)" in text
    assert "-n N, --tasks N number of tasks (default: 32)" in text


def test_environments_are_listed(workplace, capfd):
    assert main(["envs"]) == 0
    assert "word-count" in capfd.readouterr().out


def test_a_missing_package_is_named_and_a_defect_of_our_own_is_not_blamed_on_one():
    with (
        pytest.raises(ConfigError, match="training needs the package 'no_such_package': pip install"),
        training_packages(),
    ):
        import no_such_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError), training_packages():
        import rlm_env.no_such_module  # noqa: F401


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("eval", ("options.KEY", "rollout.KEY or rollout.SCAFFOLD.KEY: root, sub, max_turns", "engine.KEY: port")),
        ("train", ("options.KEY", "rollout.KEY: root, sub, max_turns", "groups.KEY: size", "engine.KEY: port")),
        ("sft", ("keep.KEY: min_score", "optimizer.KEY: lr")),
    ],
)
def test_the_help_lists_the_keys_that_can_be_set(capfd, name, keys):
    text = " ".join(help_of(capfd, name).split())
    for key in keys:
        assert key in text
