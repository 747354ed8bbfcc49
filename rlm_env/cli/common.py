"""Shared by the commands: help texts, flags, how a run that was stopped ends, missing packages."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import textwrap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from rlm_env.runs.config import merge, merge_options
from rlm_env.runs.console import say, say_stopped
from rlm_env.runs.errors import ConfigError, RunStopped, table_model
from rlm_env.runs.interrupt import Terminated
from rlm_env.scaffolds.config import RLMConfig

EXIT_CODES = """\
exit codes:
  0    done
  1    nothing could be scored, the disk refused, or check or validate found something
  2    a mistake in what was asked for
  3    the engine or the judge did not start, died, or refused the same thing again and again
  4    stopped by --max-cost
  130  interrupted (Ctrl-C); 143: by SIGTERM
"""


class HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions, keeps the line breaks of examples, breaks no name at a hyphen."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
        return "".join(indent + line for line in text.splitlines(keepends=True))


def set_keys(config: type[BaseModel], page: str, without: Collection[str] = ()) -> str:
    """The part of a help text that lists the keys of `--set`. `page`: where each is described; `without`: keys of the
    config that this command refuses."""
    plain: list[str] = []
    tables: list[str] = []
    for name, field in config.model_fields.items():
        inner = RLMConfig if name == "rollout" else table_model(field.annotation)
        if name == "options":
            tables.append("options.KEY: an option of the environment, see its README")
        elif inner is not None and name != "environments":
            key = "engines.NAME.KEY" if name == "engines" else f"{name}.KEY"
            one_scaffold = (
                f" or {name}.SCAFFOLD.KEY" if name == "rollout" and "scaffolds" in config.model_fields else ""
            )
            tables.append(f"{key}{one_scaffold}: {', '.join(inner.model_fields)}")
        elif name not in ("environments", *without):
            plain.append(name)
    lines = [*tables, f"at the top: {', '.join(plain)}"]
    wrapped = [textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="      ") for line in lines]
    return f"keys of --set (each is described in {page}):\n" + "\n".join(wrapped) + "\n\n"


def add_command(
    commands: Any, name: str, *, summary: str, description: str, examples: str, keys: str = ""
) -> argparse.ArgumentParser:
    """The parser of a new command. `summary` is its line in the list of commands; `keys` comes from `set_keys`."""
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{keys}examples:\n{examples}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,  # a new option must not change what an old command line means
    )


ENGINE_FLAGS = ("model", "sub_model", "base_url", "sub_base_url", "api_key_env", "sub_api_key_env", "tokens", "prices")
"""Destinations of the flags of `add_engine_flags`: keys of `EngineKeys`."""
JUDGE_FLAGS = ("judge_model", "judge_base_url", "judge_api_key_env")
"""Those of `add_judge_flags`."""


def add_engine_flags(command: argparse.ArgumentParser) -> None:
    """The flags that say which LLMs answer, and where they are."""
    add = command.add_argument_group("models").add_argument
    add(
        "--model",
        help="the root LLM: tiny-rlm, a model folder, or with --base-url the name of a model there "
        "(default: the config's)",
    )
    add("--sub-model", metavar="MODEL", help="the sub-LLM (default: the root LLM)")
    add("--base-url", metavar="URL", help="an OpenAI-compatible endpoint (default: a local vLLM is started)")
    add("--sub-base-url", metavar="URL", help="the sub-LLM's endpoint, or local (default: that of the root LLM)")
    add(
        "--api-key-env",
        metavar="NAME",
        help="the environment variable that holds the endpoint's key (default: none is sent)",
    )
    add(
        "--sub-api-key-env",
        metavar="NAME",
        help="the same for the sub-LLM (default: as the root LLM at the same endpoint, else none)",
    )
    add(
        "--tokens",
        metavar="FOLDER",
        help="exchange token ids instead of text with the vLLM at --base-url; FOLDER is the model "
        "folder it serves (default: text)",
    )
    add(
        "--prices",
        metavar="FILE.toml",
        help="a table of US dollars per million tokens, by model; presets: the shipped one, with days and "
        "sources; presets,FILE.toml: yours over it (default: none, money is not counted)",
    )


def add_judge_flags(command: argparse.ArgumentParser) -> None:
    """The flags that say which LLM judges."""
    add = command.add_argument_group("judge").add_argument
    add(
        "--judge-model",
        metavar="MODEL",
        help="the LLM that judges, for environments that take a judge (default: what "
        "the environment's option judge says)",
    )
    add("--judge-base-url", metavar="URL", help="the judge's endpoint, or local (default: that of the root LLM)")
    add(
        "--judge-api-key-env",
        metavar="NAME",
        help="the same for the judge (default: as the root LLM at the same endpoint, else none)",
    )


def add_run_flags(command: argparse.ArgumentParser, *, out: str, example: str) -> None:
    """The flags of every command that runs something: `--set`, `--out`, `--resume`."""
    group = command.add_argument_group("the run")
    add_set_flag(group, example)
    group.add_argument("--out", type=Path, metavar="FOLDER", help=f"the output folder (default: {out})")
    group.add_argument("--resume", action="store_true", help="go on with the run in the output folder")


def add_set_flag(to: argparse._ActionsContainer, example: str) -> None:
    """The flag `--set`, for a command or a group of its flags."""
    to.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"set a key of the config, over the file's value, for example {example}; repeatable. Numbers, true, "
        "false and [lists] are read as in TOML; a,b is a list; anything else is text",
    )


def port_number(text: str) -> int:
    """The value of `--port`. Raises ArgumentTypeError."""
    if not text.isdecimal() or not 0 <= int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def overrides(arguments: argparse.Namespace, keys: Sequence[str]) -> dict[str, Any]:
    """The values of `--set`, with those of the flags `keys` over them. Raises ConfigError."""
    flags = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    return merge(merge_options(arguments.set), flags)


def end_stopped(console: Console, stop: RunStopped | KeyboardInterrupt | Terminated, resume: str | None) -> int:
    """Says why a run was stopped and, if it can be resumed, with which command; returns the exit code."""
    exit_code = say_stopped(console, stop)
    if resume is not None:
        say(console, f"Finished work is on disk. To go on:\n  {resume}")
    return exit_code


def resume_command(command: str, out: Path) -> str:
    """The command line that goes on with the run in a folder."""
    return f"rlm-env {command} {shlex.quote(str(out / 'config.toml'))} --resume"


@contextlib.contextmanager
def needed_packages(what: str, extra: str) -> Iterator[None]:
    """Turns the import of a package that is not installed into ConfigError, which says what needs it and which extra
    has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "rlm_env":
            raise
        raise ConfigError(f"{what} needs the package {error.name!r}: pip install 'rlm-env[{extra}]'") from error
