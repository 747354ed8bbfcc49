"""What vLLM's log says: how far its start has come, and what it died of."""

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
"""What the log says, and what it means; in the order in which it happens."""
FIRST_STAGE = "importing vLLM"
EXCEPTION = re.compile(
    r"(?:^|[\])] )((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b: .+)$", re.MULTILINE
)
PROCESS = re.compile(r"^\(\w+ pid=\d+\) ")
TAIL_LINES = 12
NOISE = ("nanobind:", " - leaked ", " - ... skipped")
"""What a dying process says after what matters."""


def read_log(path: Path | None) -> str:
    try:
        return path.read_text(errors="replace") if path is not None else ""
    except OSError:
        return ""


def stage(text: str) -> str:
    """The stage that the log has reached, in a few words."""
    return next((meaning for marker, meaning in reversed(STAGES) if marker in text), FIRST_STAGE)


def explain(text: str, path: Path | None) -> str:
    """The first exception, which is the cause (those after it are its consequences in other processes), the last
    lines, and where the rest is; to be appended to a message."""
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
    found = EXCEPTION.search(text)
    if found is None:
        return ""
    cause = found[1].strip()
    if "validation error" in cause:  # pydantic says what is wrong in the line below
        below = text[found.end() :].lstrip("\n").partition("\n")[0]
        cause = PROCESS.sub("", below).partition(" [type=")[0].strip() or cause
    return cause
