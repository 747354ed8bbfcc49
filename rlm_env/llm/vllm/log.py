"""Reads vLLM's log: the stage that a start has reached, and the cause of a failure."""

from __future__ import annotations

import re
from pathlib import Path

STAGES = (
    ("non-default args", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading the weights"),
    ("Warming up model for the compilation", "compiling"),
    ("Capturing CUDA graphs", "capturing CUDA graphs"),
    ("KV cache size", "preparing the cache"),
    ("Starting vLLM server", "opening the port"),
)
"""(words in the log, stage that they mean), in the order in which they appear."""
FIRST_STAGE = "importing vLLM"
EXCEPTION = re.compile(
    r"(?:^|[\])] )((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b: .+)$", re.MULTILINE
)
PROCESS = re.compile(r"^\(\w+ pid=\d+\) ")
TAIL_LINES = 12
NOISE = ("nanobind:", " - leaked ", " - ... skipped")
"""Beginnings of lines that a dying process writes after the cause."""


def read_log(path: Path) -> str:
    """The log so far, "" if there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def startup_stage(text: str) -> str:
    """The stage that the start has reached, in a few words."""
    return next((meaning for marker, meaning in reversed(STAGES) if marker in text), FIRST_STAGE)


def describe_failure(text: str, path: Path) -> str:
    """The end of an error message: the first exception of the log, which is the cause (later ones are consequences in
    other processes), its last lines, and its path."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(NOISE)][-TAIL_LINES:]
    cause = _cause(text)
    return "".join(
        [
            f": {cause}" if cause else "",
            "\nits log ends with\n",
            *(f"  {line}\n" for line in lines),
            f"whole log: {path}",
        ]
    )


def _cause(text: str) -> str:
    """The last exception in the log, in one line."""
    found = EXCEPTION.search(text)
    if found is None:
        return ""
    cause = found[1].strip()
    if "validation error" in cause:  # pydantic says what is wrong in the line below
        below = text[found.end() :].lstrip("\n").partition("\n")[0]
        cause = PROCESS.sub("", below).partition(" [type=")[0].strip() or cause
    return cause
