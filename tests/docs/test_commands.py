"""Every command in README and docs is one that there is, with flags and settings that it takes."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_env.asking.config import ask_config
from rlm_env.cli.common import ENGINE_FLAGS, overrides
from rlm_env.cli.eval import FLAGS
from rlm_env.cli.main import COMMANDS, make_parser
from rlm_env.evals.config import load_eval_config
from rlm_env.train.rl.config import load_train_config
from rlm_env.train.sft.config import load_sft_config
from tests.docs.pages import ROOT, Command, commands
from tests.environments.test_readmes import options_of

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = {"rlm-env", *PYPROJECT["optional-dependencies"]["environments"]}
OWN = {"my-env": {"judge_mode"}, "open-refunds-rlm": {"tickets"}}
"""Environments that a page writes -> their options."""
FOREIGN = ("cd", "docker", "git", "hf", "journalctl", "mkdir", "pypi-server", "source", "twine", "uv", "vf-eval")
FOREIGN += ("vf-replay", "vf-validate", "vllm")
"""Programs of others. What they are told is checked where a test runs the block, or not at all."""
IN_BLOCKS = [command for command in commands() if ":" in command.place]
PARSER = make_parser()


def problems(check: Callable[[Command], str | None], found: list[Command]) -> list[str]:
    return [f"{command}: {said}" for command in found if (said := check(command))]


def of_program(*names: str) -> list[Command]:
    return [command for command in commands() if command.words[0] in names]


def parsed(words: tuple[str, ...]) -> Any:
    """The arguments, or what the parser says of them."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            return PARSER.parse_args(words)
        except SystemExit:
            return said.getvalue().strip().splitlines()[-1]


def test_every_program_is_known():
    ours = {"rlm-env", "pip", "python", "torchrun"}
    unknown = [c for c in IN_BLOCKS if c.words[0] not in {*ours, *FOREIGN} and not is_script(c.words[0])]
    assert [str(command) for command in unknown] == []


def is_script(word: str) -> bool:
    return word.removeprefix("./").startswith("scripts/")


def test_commands_in_blocks_are_understood_with_their_settings(monkeypatch):
    monkeypatch.chdir(ROOT)

    def check(command: Command) -> str | None:
        words = command.words[1:]
        if command.words[0] == "torchrun":
            assert "rlm_env.cli" in words
            words = words[words.index("rlm_env.cli") + 1 :]
        arguments = parsed(words)
        if isinstance(arguments, str):
            return arguments
        try:
            return wrong_option(words[0], arguments, settings(words[0], arguments))
        except ValueError as error:
            return str(error)

    found = [command for command in IN_BLOCKS if command.words[0] in ("rlm-env", "torchrun")]
    assert len(found) >= 50
    assert problems(check, found) == []


def settings(name: str, arguments: Any) -> dict[str, Any]:
    """Loads the config that a command describes; returns the options of environments in it. Raises ConfigError."""
    if name == "eval":
        values = overrides(arguments, FLAGS)
        path = Path(arguments.target)
        if path.suffix != ".toml":
            values["environments"] = [{"name": arguments.target}]
        file = None if path.suffix != ".toml" else path if path.is_file() else Path("configs/eval/quickstart.toml")
        return load_eval_config(file, values, "now").options
    if name == "train":
        file = arguments.config if arguments.config.is_file() else Path("configs/train/tiny.toml")
        load_train_config(file, overrides(arguments, ("out", "seed")))
    elif name == "sft":
        load_sft_config(arguments.config, overrides(arguments, ("model", "rollouts", "out", "seed")))
    elif name in ("ask", "serve"):
        ask_config(overrides(arguments, ENGINE_FLAGS), "command line")
    elif name == "score":
        return overrides(arguments, ()).get("options", {})
    return {}


def wrong_option(name: str, arguments: Any, options: dict[str, Any]) -> str | None:
    """What is wrong with the options of the environment; of a config file and a run, any environment may have them."""
    packages = {path.parent.name for path in ROOT.glob("environments/*/pyproject.toml")}
    own = str(getattr(arguments, "target", "")).replace("-", "_")
    if own.replace("_", "-") in OWN:
        known = OWN[own.replace("_", "-")]
    else:
        known = set().union(*(options_of(package) for package in packages if own in (package, "") or "/" in own))
    if name == "eval" and not known:
        return f"no environment {arguments.target}"
    wrong = options.keys() - known
    return f"no option {', '.join(wrong)}" if wrong else None


def test_commands_in_sentences_have_flags_that_there_are():
    """They may lack arguments, or hold `[--flag]` as in a usage."""
    words = {add.__name__.removeprefix("add_") for add in COMMANDS}

    def check(command: Command) -> str | None:
        if len(command.words) == 1 or command.words[1] in ("COMMAND", "--help", "--version"):
            return None
        name = command.words[1]
        if name not in words:
            return f"no command {name}"
        known = PARSER._subparsers._group_actions[0].choices[name]._option_string_actions
        flags = [flag.partition("=")[0] for flag in re.findall(r"(?<![\w-])-{1,2}[a-z][\w-]*", " ".join(command.words))]
        unknown = [flag for flag in flags if flag not in known]
        return f"no flag {', '.join(unknown)}" if unknown else None

    assert problems(check, [command for command in of_program("rlm-env") if command not in IN_BLOCKS]) == []


def test_scripts_are_there_with_their_flags():
    def check(command: Command) -> str | None:
        script, *words = command.words[1:] if command.words[0] == "python" else command.words
        if script in ("-c", "-m"):
            return None
        path = ROOT / script
        if not path.is_file():
            return "no such file"
        source = path.read_text("utf-8")
        unknown = [flag for flag in words if flag.startswith("-") and flag not in source]
        return f"no flag {', '.join(unknown)}" if unknown else None

    found = [command for command in commands() if command.words[0] == "python" or is_script(command.words[0])]
    assert problems(check, found) == []


def test_what_pip_installs_is_ours_or_known():
    extras = PYPROJECT["optional-dependencies"].keys()
    known = {name.partition(">")[0] for name in PACKAGES} | OWN.keys() | {"pypiserver"}

    def check(command: Command) -> str | None:
        words = command.words[2:] if command.words[1] == "install" else ()
        named = re.findall(
            r"(?<!\S)([a-z][\w-]*|\.)(?:\[([\w,-]+)\])?(?=[\s<>=]|$)", " ".join(w for w in words if w[0] != "-")
        )
        wrong = {name for name, _ in named} - known - {"."}
        wrong |= {extra for _, chosen in named for extra in chosen.split(",") if extra} - extras
        return f"unknown: {', '.join(sorted(wrong))}" if wrong else None

    assert problems(check, of_program("pip")) == []


def test_extras_in_sentences_are_there():
    from tests.docs.pages import pages

    extras = PYPROJECT["optional-dependencies"].keys()
    wrong = [
        f"{page}: {extra}"
        for page, text in pages().items()
        for chosen in re.findall(r"rlm-env\[([\w,-]+)\]", text)
        for extra in chosen.split(",")
        if extra not in extras
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eval oolong-rlm --model m --sclaffolds rlm", "unrecognized arguments: --sclaffolds rlm"),
        ("eval oolong-rlm --model m --set rollout.max_turn=3", "unknown key 'max_turn'"),
        ("eval oolong-rlm --model m --set options.lenghts=3", "no option lenghts"),
        ("eval oolong --model m", "no environment oolong"),
        ("train configs/train/tiny.toml --set loss.prest=dapo", "unknown key 'loss.prest'"),
        ("sft --model m --rollouts r --set keep.best=1", "unknown key 'keep.best'"),
    ],
)
def test_a_mistake_is_found(line, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = tuple(shlex.split(line))
    arguments = parsed(words)
    if isinstance(arguments, str):
        assert said in arguments
        return
    try:
        found = wrong_option(words[0], arguments, settings(words[0], arguments))
    except ValueError as error:
        found = str(error)
    assert said in str(found)
