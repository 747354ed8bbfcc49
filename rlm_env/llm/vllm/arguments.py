"""Arguments of the vLLM server as people write them: which ones are named, and what vLLM's own parser says of them.

vLLM takes `--block-size 8`, `--block-size=8` and `--block_size=8` alike, short names such as `-tp 2` and `-O3`, and
keys of a table as `--compilation-config.mode 3`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-dcp": "--decode-context-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
    "-sc": "--speculative-config",
    "-q": "--quantization",
    "-O": "--optimization-level",
}
"""Short names of vLLM's arguments."""
NUMBER = re.compile(r"-?\d")
"""How a value begins that is no argument in spite of its minus sign."""
SET_BY_US = {
    "--model": "set model",
    "--dtype": "set engine.dtype",
    "--max-model-len": "set engine.max_model_len",
    "--port": "set engine.port",
    "--host": "the engine is local",
    "--uds": "the engine is asked by port",
    "--seed": "set seed",
    "--served-model-name": "the run names it",
    "--device-ids": "set engine.devices",
    "--enforce-eager": "set engine.eager",
    "--api-key": "the run asks without a key",
    "--config": "its arguments could not be checked; write them here",
    "--worker-extension-cls": "the run has its own, which counts the tokens of requests in flight",
}
"""Arguments of a local vLLM that are set elsewhere, with the remedy."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument with its values, as vLLM reads them."""

    name: str
    """In full, with dashes, without the key of a table."""
    values: tuple[str, ...]
    is_table: bool = False
    """Whether its name was followed by the key of a table."""

    @property
    def positive(self) -> str:
        """The name without the `no-` that switches a flag off."""
        return self.name.replace("--no-", "--", 1)


def server_arguments(arguments: Sequence[str]) -> Iterator[Argument]:
    """The arguments in a list of words. Words in front of the first one are an argument without a name."""
    name, table, values = "", False, list[str]()
    for word in arguments:
        if not word.startswith("-") or NUMBER.match(word):
            values.append(word)
            continue
        if name or values:
            yield Argument(name, tuple(values), table)
        name, equals, value = word.partition("=")
        if name.startswith("-O") and name not in SHORT:
            name, equals, value = "-O", "=", name[2:]
        name, dot, _ = name.partition(".")
        name, table, values = SHORT.get(name, name.replace("_", "-")), bool(dot), [value] if equals else []
    if name or values:
        yield Argument(name, tuple(values), table)


def argument_names(arguments: Sequence[str]) -> set[str]:
    """The names in a list of words, in full; of a flag without its `no-`."""
    return {argument.positive for argument in server_arguments(arguments)}


def set_elsewhere(arguments: Sequence[str]) -> Iterator[str]:
    """What is wrong with arguments that somebody else sets, one text each."""
    for argument in server_arguments(arguments):
        if reason := SET_BY_US.get(argument.positive):
            yield f"{argument.name} is not to be set: {reason}"


def parser_complaint(arguments: Sequence[str]) -> str | None:
    """What the installed vLLM's own parser says against these arguments; None if it takes them. Imports vLLM, which
    takes seconds."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Refused(Exception):
        pass

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise Refused(message)

    parser = make_arg_parser(Parser())
    try:
        with contextlib.redirect_stderr(None):
            parser.parse_args(list(arguments))
    except Refused as refused:
        return str(refused)
    return None
